"""A refused event with the reason written onto it, and the way back.

An event that is a JSON object keeps every byte of its own fields; anything else is wrapped whole.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
from typing import Any

import msgspec

from group_scores.scores.event import InvalidEventError
from group_scores.scores.record import SourceRecord

SOURCE_NAME = "AssessmentAggregator"
"""`metadata.src`, which today's consumers of the failed topic read."""

_ENVELOPE_BYTES = 4096  # what metadata and wrapping take at most, beside the payload
_decode_object = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_encode = msgspec.json.Encoder().encode


def dead_letter(record: SourceRecord, stage: str, reason: str) -> bytes:
    """Return the dead letter of `record` as one JSON object in one line.

    `stage` is the transform that refused it, `reason` one sentence that a person can act on. An
    event that was a dead letter before keeps the position at which it was first read.
    """
    text = _utf8_or_none(record.value)
    if text is None:
        encoded = base64.b64encode(record.value).decode()
        return _encode(
            {"raw": encoded, "encoding": "base64", "metadata": _metadata(record, stage, reason, {})}
        )
    fields = _object_fields(text)
    if fields is None:
        return _encode({"raw": text, "metadata": _metadata(record, stage, reason, {})})
    own = _own_metadata(fields.pop("metadata", None))
    fields["metadata"] = msgspec.Raw(_encode(_metadata(record, stage, reason, own)))
    return _encode(fields).translate(None, b"\r\n")  # outside of strings: JSON escapes them inside


def cut_dead_letter(record: SourceRecord, stage: str, reason: str, limit: int) -> bytes:
    """Return a dead letter of at most `limit` bytes that holds only the start of the event.

    `metadata.size` and `metadata.sha256` tell what the whole is, its position where it is.
    """
    metadata = _metadata(record, stage, reason[:1000], {}) | {
        "cut": True,
        "size": len(record.value),
        "sha256": hashlib.sha256(record.value).hexdigest(),
    }
    keep = max(0, (limit - _ENVELOPE_BYTES) // 2)
    while True:
        start = record.value[:keep]
        try:
            # A cut inside a character is not an encoding fault: the incomplete tail is dropped.
            body: dict[str, Any] = {"raw": _utf8_prefix(start)}
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
        letter = json.loads(record.value)
    except (ValueError, RecursionError):
        return None
    if not isinstance(letter, dict) or not isinstance(letter.get("raw"), str):
        return None
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
    record: SourceRecord, stage: str, reason: str, own: dict[str, msgspec.Raw]
) -> dict[str, Any]:
    position = _position(record)
    if _value(own.get("src")) == SOURCE_NAME:
        position = _first_position({name: _value(own.get(name)) for name in position}) or position
    # A reason may quote the event, and so hold what UTF-8 does not.
    sentence = reason.encode("utf-8", "backslashreplace").decode()
    return own | {"validation_error": sentence, "src": SOURCE_NAME, "stage": stage} | position


def _position(record: SourceRecord) -> dict[str, Any]:
    return {"topic": record.topic, "partition": record.partition, "offset": record.offset}


def _first_position(metadata: dict[str, Any]) -> dict[str, Any] | None:
    position = {name: metadata.get(name) for name in ("topic", "partition", "offset")}
    known = (
        isinstance(position["topic"], str)
        and isinstance(position["partition"], int | None)
        and isinstance(position["offset"], int)
    )
    return position if known else None


def _own_metadata(own: msgspec.Raw | None) -> dict[str, msgspec.Raw]:
    """Return the event's own metadata fields; a metadata that is no object goes into `original`."""
    if own is None:
        return {}
    fields = _object_fields(bytes(own).decode())
    return {"original": own} if fields is None else fields


def _value(raw: msgspec.Raw | None) -> Any:
    """Return the value of a small field, or None where it is absent or not to be decoded."""
    try:
        return None if raw is None else json.loads(bytes(raw))
    except (ValueError, RecursionError):
        return None


def _utf8_or_none(value: bytes) -> str | None:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return None


def _utf8_prefix(start: bytes) -> str:
    try:
        return start.decode()
    except UnicodeDecodeError as error:
        if len(start) - error.start < 4 and error.reason == "unexpected end of data":
            return start[: error.start].decode()
        raise


def _object_fields(text: str) -> dict[str, msgspec.Raw] | None:
    """Return the top-level fields of a JSON object, each as the text it came in; else None."""
    try:
        return _decode_object(text.encode())
    except (msgspec.MsgspecError, RecursionError):
        pass
    # JSON that the fast decoder does not take: a lone surrogate escape. json.dumps writes such an
    # escape again; a number that it could not write again as it was makes the event a wrapped one.
    try:
        tree = json.loads(text, parse_constant=_refuse, parse_float=_float)
        if not isinstance(tree, dict):
            return None
        for name in tree:
            name.encode()
        return {name: msgspec.Raw(json.dumps(value).encode()) for name, value in tree.items()}
    except (ValueError, RecursionError):
        return None


def _refuse(name: str) -> float:
    raise ValueError(name)


def _float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(text)
    return value
