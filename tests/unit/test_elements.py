"""The coders of what travels between the stages."""

from __future__ import annotations

import pickle
from typing import Any

import apache_beam as beam
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from group_scores.transforms.elements import ELEMENTS, StructCoder

_FLOATS = st.floats(allow_nan=False, allow_infinity=False)
# What UTF-8 holds: the parser lets nothing else through.
_text = st.text(st.characters(codec="utf-8"), max_size=8)


def _instances(struct: type[msgspec.Struct]) -> st.SearchStrategy[Any]:
    fields = {
        field.name: _of(msgspec.inspect.type_info(field.type))
        for field in msgspec.structs.fields(struct)
    }
    return st.builds(struct, **fields)


def _of(info: Any) -> st.SearchStrategy[Any]:
    match info:
        case msgspec.inspect.StructType():
            return _instances(info.cls)
        case msgspec.inspect.NamedTupleType():
            return st.builds(info.cls, *(_of(field.type) for field in info.fields))
        case msgspec.inspect.UnionType():
            return st.one_of(*(_of(each) for each in info.types))
        case msgspec.inspect.ListType():
            return st.lists(_of(info.item_type), max_size=2)
        case msgspec.inspect.DictType():
            return st.dictionaries(_of(info.key_type), _of(info.value_type), max_size=2)
        case msgspec.inspect.NoneType():
            return st.none()
        case msgspec.inspect.StrType():
            return _text
        case msgspec.inspect.BytesType():
            return st.binary(max_size=8)
        case msgspec.inspect.IntType():
            return st.integers(-(2**63), 2**63 - 1)
        case msgspec.inspect.FloatType():
            return _FLOATS
        case msgspec.inspect.BoolType():
            return st.booleans()
    raise TypeError(info)


@pytest.mark.parametrize("struct", ELEMENTS, ids=lambda struct: struct.__name__)
@given(data=st.data())
def test_an_element_survives_its_coder(struct: type[msgspec.Struct], data: st.DataObject) -> None:
    element = data.draw(_instances(struct))
    coder = beam.coders.registry.get_coder(struct)
    assert isinstance(coder, StructCoder)
    assert coder.decode(coder.encode(element)) == element
    again = pickle.loads(pickle.dumps(coder))
    assert again == coder
    assert again.encode(coder.decode(coder.encode(element))) == coder.encode(element)
