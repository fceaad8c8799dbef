"""How a simulated event can be wrong: every rule of the input contract, broken in some way."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import msgspec

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode
_Event = dict[str, Any]

_ABSENT = object()
_NAN = msgspec.Raw(b"NaN")
_HUGE = msgspec.Raw(b"1e999")
_SURROGATE = msgspec.Raw(b'"\\ud800"')
_NOT_UTF8 = msgspec.Raw(b'"\xff\xfe"')

_EDATA = ("events", 0, "edata")
_ITEM = (*_EDATA, "item")
_WRONG: tuple[tuple[tuple[str | int, ...], object], ...] = (
    (("courseId",), "  "),
    (("batchId",), None),
    (("userId",), _ABSENT),
    (("contentId",), 212_686),
    (("attemptId",), ""),
    (("userId",), _SURROGATE),
    (("contentId",), _NOT_UTF8),
    (("userId",), "u" * 70_000),
    (("batchId",), "b" * 65_533),
    (("attemptId",), "a" * 66_000),
    (("assessmentTs",), _ABSENT),
    (("assessmentTs",), "1760000000000"),
    (("assessmentTs",), 0),
    (("assessmentTs",), 1_760_000_000_000.5),
    (("events",), {"not": "a list"}),
    (("events",), "[]"),
    (("events", 0), None),
    (("events", 0, "ets"), None),
    (("events", 0, "ets"), -1),
    (_EDATA, _ABSENT),
    ((*_EDATA, "score"), "NaN"),
    ((*_EDATA, "score"), None),
    ((*_EDATA, "score"), True),
    ((*_EDATA, "score"), _NAN),
    ((*_EDATA, "score"), _HUGE),
    (_ITEM, None),
    ((*_ITEM, "id"), ""),
    ((*_ITEM, "id"), _ABSENT),
    ((*_ITEM, "maxscore"), -1),
    ((*_ITEM, "maxscore"), _HUGE),
    ((*_ITEM, "maxscore"), "1"),
)
_MANGLED: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    lambda message, _: message[:-40],
    lambda message, _: message.replace(b'"userId"', b'"\xff\xfe"', 1)[::-1],
    lambda message, _: b"[" + message + b"]",
    lambda message, _: _encode(message.decode()),
    lambda message, _: message + message,
    lambda message, _: b"null",
    lambda message, _: b"{}",
    lambda message, draw: b"\x00\n" + draw.randbytes(200) + b"\xff",
)
FAULTS = len(_WRONG) + len(_MANGLED)
"""How many ways there are to be wrong."""

_STRANGE: tuple[tuple[str, str | None, object], ...] = (
    ("resvalues", None, "skipped"),
    ("resvalues", None, {"1": "no list"}),
    ("duration", None, "24"),
    ("item", "params", "see the book"),
    ("item", "title", {"en": "Which?"}),
    ("item", "type", 1),
    ("item", "desc", False),
)


def spoil(message: bytes, draw: random.Random) -> bytes:
    """Return the event with one rule broken, in a way that is drawn."""
    return broken(message, draw.randrange(FAULTS), draw)


def broken(message: bytes, fault: int, draw: random.Random) -> bytes:
    """Return the event broken in the way of that number, from 0 to FAULTS - 1."""
    if fault >= len(_WRONG):
        return _MANGLED[fault - len(_WRONG)](message, draw)
    event: _Event = _decode(message)
    path, value = _WRONG[fault]
    if len(path) > 1 and not event.get("events"):
        event["events"] = [{"ets": 1, "edata": {"item": {"id": "q", "maxscore": 1}, "score": 0}}]
    place: Any = event
    for step in path[:-1]:
        place = place[step]
    if value is _ABSENT:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return _encode(event)


def with_strange_fields(answer: _Event, draw: random.Random) -> _Event:
    """Return the answer with an optional field of a wrong type, which costs nobody a score."""
    field, inner, value = draw.choice(_STRANGE)
    edata = answer["edata"]
    if inner is not None:
        value = edata[field] | {inner: value}
    return answer | {"edata": edata | {field: value}}
