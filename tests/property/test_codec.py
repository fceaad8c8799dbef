"""Our encoders give the bytes that the driver gives for the same type of column."""

from __future__ import annotations

import random
import struct
from decimal import Decimal
from typing import Any

import pytest
from cassandra.cqltypes import (
    DateType,
    DecimalType,
    DoubleType,
    Int32Type,
    ListType,
    LongType,
    MapType,
    UserType,
    UTF8Type,
)
from cassandra.query import SimpleStatement
from hypothesis import example, given
from hypothesis import strategies as st

from group_scores.scores import Question
from group_scores.stores.cassandra import codec
from tests.values import durations, ids, questions, scores, texts, times_ms

PROTOCOL = 4
INTS = st.integers(-(2**31), 2**31 - 1)
LONGS = st.integers(-(2**63), 2**63 - 1)
MAP_OF_TEXT = MapType.apply_parameters([UTF8Type, UTF8Type])
TYPES = {
    "text": UTF8Type,
    "timestamp": DateType,
    "double": DoubleType,
    "decimal": DecimalType,
    "list<frozen<map<text, text>>>": ListType.apply_parameters([MAP_OF_TEXT]),
    "int": Int32Type,
}
_driver_names = {"assess_ts": "assess_ts_ms"}


def driver(cql_type: Any, value: object) -> bytes:
    return bytes(cql_type.serialize(value, PROTOCOL))


@given(LONGS)
def test_integers_and_times(value: int) -> None:
    assert codec.bigint(value) == driver(LongType, value)
    assert codec.timestamp_ms(value) == driver(DateType, value)


@given(st.floats(allow_nan=False))
def test_doubles(value: float) -> None:
    assert codec.double(value) == driver(DoubleType, value)


@given(texts)
def test_text(value: str) -> None:
    assert codec.text(value) == driver(UTF8Type, value)


@given(durations)
@example(0.0)
@example(-0.0)
@example(5e-324)
@example(127)
@example(-128)
@example(128)
@example(-129)
@example(3.602879701896397e16)
def test_decimals(value: int | float) -> None:
    exact = Decimal(value) if isinstance(value, int) else Decimal(repr(value))
    assert codec.decimal(value) == driver(DecimalType, exact)
    assert DecimalType.deserialize(codec.decimal(value), PROTOCOL) == exact


@given(st.dictionaries(texts, INTS))
def test_maps_of_int(values: dict[str, int]) -> None:
    cql_type = MapType.apply_parameters([UTF8Type, Int32Type])
    assert codec.map_of_int(values) == driver(cql_type, values)


@given(st.dictionaries(texts, scores))
def test_maps_of_double(values: dict[str, float]) -> None:
    cql_type = MapType.apply_parameters([UTF8Type, DoubleType])
    assert codec.map_of_double(values) == driver(cql_type, values)


@given(st.lists(texts, unique=True), times_ms)
def test_maps_of_timestamp(keys: list[str], value_ms: int) -> None:
    cql_type = MapType.apply_parameters([UTF8Type, DateType])
    assert codec.map_of_timestamp(keys, value_ms) == driver(cql_type, dict.fromkeys(keys, value_ms))


@given(st.lists(texts))
def test_lists(values: list[str]) -> None:
    encoded = codec.list_of([value.encode() for value in values])
    assert encoded == driver(ListType.apply_parameters([UTF8Type]), values)


MAPS = {"i": (Int32Type, INTS), "d": (DoubleType, scores), "q": (LongType, LONGS)}


@given(st.sampled_from(sorted(MAPS)).flatmap(lambda kind: maps_of(kind)))
def test_maps_are_decoded(drawn: tuple[str, dict[str, Any]]) -> None:
    kind, values = drawn
    data = driver(MapType.apply_parameters([UTF8Type, MAPS[kind][0]]), values)
    decoded = codec.map_decoder(kind)(data)
    assert list(decoded.items()) == list(values.items())


def maps_of(kind: str) -> st.SearchStrategy[tuple[str, dict[str, Any]]]:
    return st.tuples(st.just(kind), st.dictionaries(texts, MAPS[kind][1]))


@given(st.lists(texts))
def test_lists_are_decoded(values: list[str]) -> None:
    assert codec.texts(driver(ListType.apply_parameters([UTF8Type]), values)) == values


def drivers_routing_key(parts: list[bytes]) -> bytes:
    statement = SimpleStatement("")
    statement.routing_key = parts
    return bytes(statement.routing_key)


@given(st.lists(ids, min_size=1, max_size=4))
def test_routing_keys(parts: list[str]) -> None:
    encoded = [part.encode() for part in parts]
    assert codec.routing_key(encoded) == drivers_routing_key(encoded)


def test_routing_keys_at_their_limit() -> None:
    parts = [b"u" * 65_535, b"c"]
    assert codec.routing_key(parts) == drivers_routing_key(parts)
    with pytest.raises(struct.error):
        codec.routing_key([b"u" * 65_536, b"c"])


def as_the_driver_takes_it(question: Question, names: list[str]) -> list[object]:
    values = []
    for name in names:
        value = getattr(question, _driver_names.get(name, name), None)
        values.append(Decimal(repr(value)) if name == "duration" else value)
    return values


@given(
    st.lists(questions, max_size=3),
    st.lists(st.sampled_from(("hint", "weight", "flag")), unique=True),
    st.randoms(use_true_random=False),
)
def test_questions_with_fields_in_any_order_and_unknown_ones(
    answered: list[Question], unknown: list[str], draw: random.Random
) -> None:
    types = {name: TYPES[cql] for name, cql in codec.QUESTION_FIELDS.items()}
    types |= dict.fromkeys(unknown, Int32Type)
    names = list(types)
    draw.shuffle(names)
    udt = UserType.make_udt_class("ks", "question", tuple(names), tuple(types[n] for n in names))
    expected = driver(
        ListType.apply_parameters([udt]),
        [as_the_driver_takes_it(question, names) for question in answered],
    )
    assert codec.question_encoder(names)(answered) == expected
