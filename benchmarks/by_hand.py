"""The obvious parser: decode the whole event into dictionaries, check them field by field.

What `scores.event` is measured against. It gives the same result for an event that keeps the rules
(the benchmark makes sure of that) and refuses others with less to say.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

from group_scores.scores import AssessEvent
from group_scores.scores.event import MAX_TIME_MS, Answer

_IDS = ("courseId", "userId", "batchId", "contentId", "attemptId")
_KEY_BYTES = 65_535 - 64


def parse_by_hand(data: bytes, loads: Callable[[bytes], Any] = json.loads) -> AssessEvent:
    """Decode and check; raises ValueError."""
    event = loads(data)
    if not isinstance(event, dict):
        raise ValueError("not an object")
    ids = [_id(event.get(name)) for name in _IDS]
    if sum(len(one.encode()) for one in ids) >= _KEY_BYTES:
        raise ValueError("too long")
    time_ms = _time_ms(event.get("assessmentTs"))
    telemetry = event.get("events")
    if telemetry is not None and not isinstance(telemetry, list):
        raise ValueError("events")
    ignored: list[str] = []
    answers = [_answer(one, ignored) for one in telemetry or ()]
    return AssessEvent(*ids, time_ms, answers, len(ignored))


def _answer(telemetry: Any, ignored: list[str]) -> Answer:
    edata = telemetry["edata"]
    item = edata["item"]
    if not isinstance(edata, dict) or not isinstance(item, dict):
        raise ValueError("edata")
    maximum = _number(item.get("maxscore"))
    if maximum < 0:
        raise ValueError("maxscore")
    return Answer(
        _id(item.get("id")),
        _time_ms(telemetry.get("ets")),
        _number(edata.get("score")),
        maximum,
        _text(item.get("type"), ignored),
        _text(item.get("title"), ignored),
        _text(item.get("desc"), ignored),
        _maps(edata.get("resvalues"), ignored),
        _maps(item.get("params"), ignored),
        _duration(edata.get("duration"), ignored),
    )


def _id(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError("blank")
    value.encode()
    return value


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError("no number")
    return float(value)


def _time_ms(value: Any) -> int:
    number = _number(value)
    if number != int(number) or not 0 < number <= MAX_TIME_MS:
        raise ValueError("no time")
    return int(number)


def _text(value: Any, ignored: list[str]) -> str | None:
    if value is None or isinstance(value, str):
        return value
    ignored.append("text")
    return None


def _duration(value: Any, ignored: list[str]) -> int | float:
    if value is None:
        return 0
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        ignored.append("duration")
        return 0
    return value


def _maps(value: Any, ignored: list[str]) -> list[dict[str, str]] | None:
    if value is None:
        return None
    if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
        ignored.append("maps")
        return None
    return [
        {
            key: item
            if isinstance(item, str)
            else json.dumps(item, separators=(",", ":"), ensure_ascii=False)
            for key, item in entry.items()
        }
        for entry in value
    ]
