"""A refused event with the reason written onto it, and the way back.

An event that is a JSON object keeps every byte of its own fields; anything else is wrapped whole.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from typing import Any, NamedTuple

import msgspec

from group_scores.scores.event import InvalidEventError
from group_scores.scores.record import SourceRecord

SOURCE_NAME = "AssessmentAggregator"
"""`metadata.src`, which today's consumers of the failed topic read."""

_ENVELOPE_BYTES = 4096  # what metadata and wrapping take at most, beside the payload
_WRAPPING = {"raw", "encoding", "metadata"}
_OURS = ("validation_error", "src", "stage", "topic", "partition", "offset")
_encode = msgspec.json.Encoder().encode


def dead_letter(record: SourceRecord, stage: str, reason: str) -> bytes:
    """Return the dead letter of `record` as one JSON object in one line.

    `stage` is the transform that refused it, `reason` one sentence that a person can act on. An
    event that was a dead letter before keeps the position at which it was first read.
    """
    text = _utf8_or_none(record.value)
    if text is None:
        raw = {"raw": base64.b64encode(record.value).decode(), "encoding": "base64"}
        return _encode(raw | {"metadata": _metadata(record, stage, reason)})
    fields = _fields(text)
    own = [field.value for field in fields or () if field.name == "metadata"]
    if fields is None or len(own) > 1:
        return _encode({"raw": text, "metadata": _metadata(record, stage, reason)})
    metadata = _merged(own[0] if own else "{}", record, stage, reason)
    kept = [field.text for field in fields if field.name != "metadata"]
    letter = _object([*kept, f'"metadata":{metadata}'])
    return letter.encode().translate(None, b"\r\n")  # outside of strings: JSON escapes them inside


def cut_dead_letter(record: SourceRecord, stage: str, reason: str, limit: int) -> bytes:
    """Return a dead letter of at most `limit` bytes that holds only the start of the event.

    `metadata.size` and `metadata.sha256` tell what the whole is, its position where it is.
    """
    metadata = _metadata(record, stage, reason[:1000]) | {
        "cut": True,
        "size": len(record.value),
        "sha256": hashlib.sha256(record.value).hexdigest(),
    }
    keep = max(0, (limit - _ENVELOPE_BYTES) // 2)
    while True:
        start = record.value[:keep]
        try:
            body: dict[str, Any] = {"raw": _utf8_prefix(start, cut=keep < len(record.value))}
        except UnicodeDecodeError:
            body = {"raw": base64.b64encode(start).decode(), "encoding": "base64"}
        letter = _encode(body | {"metadata": metadata})
        if len(letter) <= limit or keep == 0:
            return letter
        keep //= 2


def unwrap(record: SourceRecord) -> SourceRecord | None:
    """Return the event that a wrapped dead letter holds, at its first position; else None.

    Raises InvalidEventError for a dead letter that was cut: the whole has to come from its source.
    """
    try:
        letter = json.loads(record.value.decode())
    except (ValueError, RecursionError):
        return None
    if not isinstance(letter, dict) or not isinstance(letter.get("raw"), str):
        return None
    if not letter.keys() <= _WRAPPING:
        return None  # an event that has a field of this name
    metadata = letter.get("metadata")
    if not isinstance(metadata, dict) or metadata.get("src") != SOURCE_NAME:
        return None
    if metadata.get("cut"):
        raise InvalidEventError(
            "raw",
            f"holds only the start of an event of {metadata.get('size')} bytes; replay the whole "
            f"from {metadata.get('topic')}, partition {metadata.get('partition')}, "
            f"offset {metadata.get('offset')}",
        )
    try:
        if letter.get("encoding") == "base64":
            value = base64.b64decode(letter["raw"], validate=True)
        else:
            value = letter["raw"].encode()
    except ValueError:
        return None
    position = _first_position(metadata) or _position(record)
    return SourceRecord(value, position["topic"], position["partition"], position["offset"])


def _metadata(
    record: SourceRecord, stage: str, reason: str, position: dict[str, Any] | None = None
) -> dict[str, Any]:
    return {
        "validation_error": _printable(reason),
        "src": SOURCE_NAME,
        "stage": stage,
    } | (position or _position(record))


def _printable(text: str) -> str:
    # A reason may quote the event, and a path be no UTF-8: both hold what JSON cannot.
    return text.encode("utf-8", "backslashreplace").decode()


def _position(record: SourceRecord) -> dict[str, Any]:
    return {
        "topic": _printable(record.topic),
        "partition": record.partition,
        "offset": record.offset,
    }


def _first_position(metadata: dict[str, Any]) -> dict[str, Any] | None:
    position = {name: metadata.get(name) for name in ("topic", "partition", "offset")}
    known = (
        isinstance(position["topic"], str)
        and position["topic"] == _printable(position["topic"])
        and isinstance(position["partition"], int | None)
        and isinstance(position["offset"], int)
    )
    return position if known else None


def _merged(own: str, record: SourceRecord, stage: str, reason: str) -> str:
    """Return the text of the event's own metadata with ours put in.

    Where it has our names already and they are not from us, or where it is no object, it is kept
    whole as `original`.
    """
    fields = _fields(own)
    found = {field.name: field.value for field in fields or () if field.name in _OURS}
    position = None
    if fields is None or (found and _value(found.get("src")) != SOURCE_NAME):
        kept = [f'"original":{own}']
    else:
        kept = [field.text for field in fields if field.name not in _OURS]
        position = _first_position({name: _value(value) for name, value in found.items()})
    ours = _encode(_metadata(record, stage, reason, position)).decode()
    return _object([*kept, ours[1:-1]])


def _value(text: str | None) -> Any:
    """Return the value of a small field, or None where it is absent or not to be decoded."""
    try:
        return None if text is None else json.loads(text)
    except (ValueError, RecursionError):
        return None


def _utf8_or_none(value: bytes) -> str | None:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return None


def _utf8_prefix(start: bytes, *, cut: bool) -> str:
    try:
        return start.decode()
    except UnicodeDecodeError as error:
        # A cut inside a character is not an encoding fault: the incomplete tail is dropped.
        if cut and len(start) - error.start < 4 and error.reason == "unexpected end of data":
            return start[: error.start].decode()
        raise


class _Field(NamedTuple):
    """A field of an object: its name, its value's text, and the text of both."""

    name: str
    value: str
    text: str


def _object(fields: list[str]) -> str:
    return "{" + ",".join(fields) + "}"


def _refuse(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


# Numbers are not read: an integer may be longer than what Python converts.
_scan = json.JSONDecoder(parse_int=str, parse_float=str, parse_constant=_refuse).raw_decode
_to_name = re.compile(r"[ \t\r\n{,]*")
_to_value = re.compile(r"[ \t\r\n:]*")


def _fields(text: str) -> list[_Field] | None:
    """Return the fields of a JSON object as they were written, repeated ones too; else None."""
    text = text.strip(" \t\r\n")
    try:
        tree, end = _scan(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(tree, dict) or end != len(text):
        return None
    fields = []
    start = _next(_to_name, text, 0)
    while text[start] != "}":
        name, at = _scan(text, start)
        value = _next(_to_value, text, at)
        _, end = _scan(text, value)
        fields.append(_Field(name, text[value:end], text[start:end]))
        start = _next(_to_name, text, end)
    return fields


def _next(gap: re.Pattern[str], text: str, at: int) -> int:
    found = gap.match(text, at)
    assert found  # a gap may be empty
    return found.end()
