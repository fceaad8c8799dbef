"""The attempts in `agg_details`, read back: what a learner's attempts were, over time."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from datetime import UTC, datetime

import msgspec

_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
# Java's newer versions put a narrow space before AM and PM.
_TIME = re.compile(
    r"\s*([A-Z][a-z]{2}) (\d{1,2}), (\d{1,4}),? (\d{1,2}):(\d\d):(\d\d)\s*([AP])M\s*", re.ASCII
)
_SPACES = re.compile(r"[\s\u202f\u00a0]+")


class DetailedAttempt(msgspec.Struct, frozen=True):
    """One attempt of the list; times are epoch ms, whole seconds; None is what is not known."""

    attempt_id: str
    content_id: str
    score: float | None
    max_score: float | None
    attempted_ms: int | None

    @property
    def percent(self) -> float | None:
        """The score in percent of the maximum, to two places; None where either is not known."""
        if self.score is None or not self.max_score:
            return None
        percent = round(100 * self.score / self.max_score, 2)
        return percent if math.isfinite(percent) else None


class _Entry(msgspec.Struct):
    content_id: str
    attempt_id: str = ""
    last_attempted_on: object = None
    score: object = None
    max_score: object = None


_decode = msgspec.json.Decoder(_Entry).decode


def read_details(details: Iterable[str]) -> list[DetailedAttempt]:
    """Return the attempts of the list, by content, then time, those without a time first.

    Another job may have written entries too: one that is not readable is left out, and a value of
    another kind is not known.
    """
    found = []
    for text in details:
        try:
            entry = _decode(text)
        except (msgspec.MsgspecError, UnicodeError, RecursionError):
            continue
        found.append(
            DetailedAttempt(
                entry.attempt_id,
                entry.content_id,
                _number(entry.score),
                _number(entry.max_score),
                detail_time_ms(entry.last_attempted_on),
            )
        )
    return sorted(found, key=lambda one: (one.content_id, one.attempted_ms or 0, one.attempt_id))


def detail_time_ms(text: object) -> int | None:
    """Return the time that `detail_time` has formatted; None for what it has not."""
    match = _TIME.fullmatch(_SPACES.sub(" ", text)) if isinstance(text, str) else None
    if match is None or match[1] not in _MONTHS:
        return None
    hour = int(match[4]) % 12 + (12 if match[7] == "P" else 0)
    day, year, minute, second = (int(match[number]) for number in (2, 3, 5, 6))
    try:
        moment = datetime(year, _MONTHS.index(match[1]) + 1, day, hour, minute, second, tzinfo=UTC)
    except ValueError:
        return None
    return (moment - _EPOCH) // _SECOND * 1000


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SECOND = datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC) - _EPOCH


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None
