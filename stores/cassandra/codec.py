"""Encode bound values straight into the native protocol's bytes, and decode collections.

The driver's own encoding walks a type tree in Python for every value; for an attempt with its
questions that is most of what a write costs. These encoders are written for the columns of this
project and held equal to the driver's by a property test. Every encoder returns the value's
bytes as they stand in a bound statement (without their length).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from struct import Struct
from typing import Any

from group_scores.scores import Question

_SHORT = Struct(">H").pack
_INT = Struct(">i").pack
_READ_INT = Struct(">i").unpack_from
_LONG = Struct(">q").pack
_DOUBLE = Struct(">d").pack
_LENGTH_INT = Struct(">ii").pack
_LENGTH_LONG = Struct(">iq").pack
_LENGTH_DOUBLE = Struct(">id").pack
_NULL = _INT(-1)

integer = _INT
bigint = _LONG
timestamp_ms = _LONG
double = _DOUBLE
text = str.encode


def decimal(value: int | float) -> bytes:
    """Encode a number as `decimal`: its scale and its unscaled value.

    A float is taken as the decimal that Python writes it as.
    """
    if isinstance(value, int):
        return _INT(0) + _varint(value)
    sign, digits, exponent = Decimal(repr(value)).as_tuple()
    assert isinstance(exponent, int)
    unscaled = int("".join(map(str, digits)))
    return _INT(-exponent) + _varint(-unscaled if sign else unscaled)


def _varint(value: int) -> bytes:
    # One bit more than the magnitude needs, for the sign.
    magnitude = value if value >= 0 else ~value
    return value.to_bytes(magnitude.bit_length() // 8 + 1, "big", signed=True)


def map_of_int(values: Mapping[str, int]) -> bytes:
    """Encode `map<text, int>`."""
    parts = [_INT(len(values))]
    for key, value in values.items():
        name = key.encode()
        parts += (_INT(len(name)), name, _LENGTH_INT(4, value))
    return b"".join(parts)


def map_of_double(values: Mapping[str, float]) -> bytes:
    """Encode `map<text, double>`."""
    parts = [_INT(len(values))]
    for key, value in values.items():
        name = key.encode()
        parts += (_INT(len(name)), name, _LENGTH_DOUBLE(8, value))
    return b"".join(parts)


def map_of_timestamp(keys: Sequence[str], value_ms: int) -> bytes:
    """Encode `map<text, timestamp>` with one time for every key."""
    time = _LENGTH_LONG(8, value_ms)
    parts = [_INT(len(keys))]
    for key in keys:
        name = key.encode()
        parts += (_INT(len(name)), name, time)
    return b"".join(parts)


def sized_integer(value: int) -> bytes:
    """Encode a map's value of type `int`, with its length."""
    return _LENGTH_INT(4, value)


def sized_double(value: float) -> bytes:
    """Encode a map's value of type `double`, with its length."""
    return _LENGTH_DOUBLE(8, value)


def entries(data: bytes) -> set[bytes]:
    """Return the entries of an encoded map: each its key and its value, with their lengths."""
    (count,) = _READ_INT(data)
    found: set[bytes] = set()
    start = 4
    for _ in range(count):
        middle = start + 4 + _READ_INT(data, start)[0]
        end = middle + 4 + _READ_INT(data, middle)[0]
        found.add(data[start:end])
        start = end
    return found


def map_decoder(value_format: str) -> Callable[[bytes], dict[str, Any]]:
    """Return the decoder of a map of text to what `struct` calls that: `i`, `d`, or `q` (ms).

    The driver builds an ordered map around each, with its keys serialized again: five times the
    work.
    """
    value = Struct(f">{value_format}")
    read_value, value_bytes = value.unpack_from, 4 + value.size

    def decode(data: bytes) -> dict[str, Any]:
        (count,) = _READ_INT(data)
        found: dict[str, Any] = {}
        start = 8
        for _ in range(count):
            end = start + _READ_INT(data, start - 4)[0]
            (found[data[start:end].decode()],) = read_value(data, end + 4)
            start = end + value_bytes + 4
        return found

    return decode


def texts(data: bytes) -> list[str]:
    """Decode `list<text>`."""
    (count,) = _READ_INT(data)
    found: list[str] = []
    start = 8
    for _ in range(count):
        end = start + _READ_INT(data, start - 4)[0]
        found.append(data[start:end].decode())
        start = end + 4
    return found


def list_of(values: Sequence[bytes]) -> bytes:
    """Encode a list of values that are encoded themselves."""
    parts = [_INT(len(values))]
    for data in values:
        parts += (_INT(len(data)), data)
    return b"".join(parts)


def routing_key(parts: Sequence[bytes]) -> bytes:
    """Return what the partitioner hashes: the partition key's columns in the table's order.

    Raises struct.error for a part that is longer than any key can be.
    """
    if len(parts) == 1:
        return parts[0]
    return b"".join([_SHORT(len(part)) + part + b"\0" for part in parts])


def _sized(data: bytes) -> bytes:
    return _INT(len(data)) + data


def _sized_text(value: str | None) -> bytes:
    return _NULL if value is None else _sized(value.encode())


def _sized_maps(value: list[dict[str, str]] | None) -> bytes:
    """Encode `list<frozen<map<text, text>>>` with its length."""
    if value is None:
        return _NULL
    parts = [_INT(len(value))]
    for entries in value:
        inner = [_INT(len(entries))]
        for key, item in entries.items():
            inner += (_sized(key.encode()), _sized(item.encode()))
        parts.append(_sized(b"".join(inner)))
    return _sized(b"".join(parts))


_FIELDS: dict[str, Callable[[Question], bytes]] = {
    "id": lambda q: _sized(q.id.encode()),
    "assess_ts": lambda q: _LENGTH_LONG(8, q.assess_ts_ms),
    "max_score": lambda q: _LENGTH_DOUBLE(8, q.max_score),
    "score": lambda q: _LENGTH_DOUBLE(8, q.score),
    "type": lambda q: _sized_text(q.type),
    "title": lambda q: _sized_text(q.title),
    "resvalues": lambda q: _sized_maps(q.resvalues),
    "params": lambda q: _sized_maps(q.params),
    "description": lambda q: _sized_text(q.description),
    "duration": lambda q: _sized(decimal(q.duration)),
}
QUESTION_FIELDS: dict[str, str] = {
    "id": "text",
    "assess_ts": "timestamp",
    "max_score": "double",
    "score": "double",
    "type": "text",
    "title": "text",
    "resvalues": "list<frozen<map<text, text>>>",
    "params": "list<frozen<map<text, text>>>",
    "description": "text",
    "duration": "decimal",
}
"""The fields of the `question` type and their CQL types."""


def _unknown(_: Question) -> bytes:
    return _NULL


def question_encoder(field_names: Sequence[str]) -> Callable[[Sequence[Question]], bytes]:
    """Return the encoder of `list<frozen<question>>` for a type with these fields, in this order.

    A field that this project does not know is null.
    """
    fields = [_FIELDS.get(name, _unknown) for name in field_names]

    def encode(questions: Sequence[Question]) -> bytes:
        parts = [_INT(len(questions))]
        for question in questions:
            parts.append(_sized(b"".join([field(question) for field in fields])))
        return b"".join(parts)

    return encode
