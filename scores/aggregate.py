"""What a row of `user_activity_agg` holds of the best scores."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date, timedelta
from functools import lru_cache

import msgspec

from group_scores.scores.best_score import BestScore, StoredAttempt, counts
from group_scores.scores.keys import ActivityKey

_INT_MIN, _INT_MAX = -(2**31), 2**31 - 1
_EPOCH = date(1970, 1, 1)
_DAY_MS = 86_400_000
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")

_VALUES: dict[str, Callable[[BestScore], float | None]] = {
    "score": lambda best: best.score,
    "max_score": lambda best: best.max_score,
    "attempts_count": lambda best: best.attempts_count,
}
METRICS = tuple(_VALUES)
"""The metrics of this pipeline: a metric's key in the maps is `<metric>:<contentId>`."""


class ActivityAgg(msgspec.Struct, frozen=True):
    """A partial update of one row: the keys to put into its maps.

    `metrics` holds the exact values; `t_us` is the µs clock just before the attempts were read,
    and the time of the write. `details` is the whole `agg_details` list, or None to leave it.
    """

    key: ActivityKey
    t_us: int
    metrics: dict[str, float]
    details: list[str] | None

    @property
    def agg(self) -> dict[str, int]:
        """The values of the `agg` column: 32-bit integers."""
        return {name: to_int(value) for name, value in self.metrics.items()}

    @property
    def updated_ms(self) -> int:
        """The value of `agg_last_updated` for every key of this update, epoch ms."""
        return self.t_us // 1000


class AggregateRow(msgspec.Struct, frozen=True):
    """One row of `user_activity_agg` as it stands; an absent row or a null map is empty.

    `write_us` is, for each key of the maps, when the last of its values was written, and
    `details_us` the same for the list; a key whose time is not known is not there.
    """

    agg: dict[str, int]
    aggregates: dict[str, float]
    agg_last_updated_ms: dict[str, int]
    details: list[str]
    write_us: dict[str, int] = {}
    details_us: int | None = None


def activity_agg(
    key: ActivityKey,
    t_us: int,
    best: Mapping[str, BestScore],
    metrics: Sequence[str] = METRICS,
    details: list[str] | None = None,
) -> ActivityAgg:
    """Put the best scores by content into the keys of the row's maps.

    A value that is no finite number has no key: an integer column could not hold it.
    """
    values: dict[str, float] = {}
    for content, score in best.items():
        for metric in metrics:
            value = _VALUES[metric](score)
            if value is not None and math.isfinite(value):
                values[f"{metric}:{content}"] = value
    return ActivityAgg(key, t_us, values, details)


def to_int(value: float) -> int:
    """Truncate towards zero and clamp to 32 bits: what `agg map<text, int>` can hold."""
    whole = int(value)
    return whole if _INT_MIN <= whole <= _INT_MAX else (_INT_MAX if whole > 0 else _INT_MIN)


class _Detail(msgspec.Struct):
    attempt_id: str
    last_attempted_on: str | None
    score: float
    content_id: str
    max_score: float | None
    type: str = "attempt_metrics"


_encode = msgspec.json.Encoder().encode


def agg_details(attempts: Iterable[StoredAttempt]) -> list[str]:
    """Return the `agg_details` list: one JSON text an attempt that counts.

    Ordered by content, then time, then attempt. An attempt without a score is left out, as it is
    everywhere else: the readers of this list compute with `score`.
    """
    chosen = sorted(
        (attempt for attempt in attempts if counts(attempt)),
        key=lambda a: (a.content_id, a.last_attempted_on_ms or 0, a.attempt_id),
    )
    return [
        _encode(
            _Detail(
                attempt.attempt_id,
                detail_time(attempt.last_attempted_on_ms),
                attempt.total_score or 0.0,
                attempt.content_id,
                attempt.total_max_score
                if attempt.total_max_score is None or math.isfinite(attempt.total_max_score)
                else None,
            )
        ).decode()
        for attempt in chosen
    ]


def detail_time(value_ms: int | None) -> str | None:
    """Format as `Sep 24, 2019, 5:59:17 AM` in UTC, whatever the machine's zone and language.

    None for a time that is not set, or that no calendar shows (other jobs write this column too).
    """
    if value_ms is None:
        return None
    days, left_ms = divmod(value_ms, _DAY_MS)
    day = _date(days)
    if day is None:
        return None
    hours, left_ms = divmod(left_ms, 3_600_000)
    minutes, left_ms = divmod(left_ms, 60_000)
    half = "AM" if hours < 12 else "PM"
    return f"{day}, {hours % 12 or 12}:{minutes:02}:{left_ms // 1000:02} {half}"


@lru_cache(10_000)  # attempts are of a few days, and this is most of a detail's cost
def _date(days: int) -> str | None:
    """Format the day that is so many after 1 January 1970."""
    try:
        day = _EPOCH + timedelta(days)
    except OverflowError:
        return None
    return f"{_MONTHS[day.month - 1]} {day.day}, {day.year}"
