"""What a row of the score report holds: a learner in a course batch, from the aggregate row."""

from __future__ import annotations

import math
from collections.abc import Mapping
from fractions import Fraction
from functools import lru_cache

import msgspec

from group_scores.scores.aggregate import to_int
from group_scores.scores.keys import METRIC_PREFIXES

_CONTEXT = "cb:"
_SCALE = 1_000_000
_MOST = 1e9  # of 15 digits six are behind the point
_PLACES = 2


class AssessmentScore(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What a learner has in one assessment; None is what is not known, and never 0."""

    score: float | None = None
    max_score: float | None = None
    attempts: int | None = None

    @property
    def percent(self) -> float | None:
        """The score in percent of the maximum, to two places; None where either is not known."""
        if self.score is None or not self.max_score:
            return None
        return _finite(round(100 * self.score / self.max_score, _PLACES))


class ReportRow(msgspec.Struct, frozen=True, array_like=True):
    """One learner in one batch of a course; what is not in `scores` has not been attempted.

    `updated_ms` is when the latest of them was written, epoch ms, None where that is not known.
    """

    course_id: str
    batch_id: str
    user_id: str
    scores: dict[str, AssessmentScore]
    updated_ms: int | None

    @property
    def key(self) -> tuple[str, str, str]:
        """What rows are ordered by."""
        return self.course_id, self.batch_id, self.user_id

    @property
    def attempts(self) -> int | None:
        """How many attempts the learner has made, where any of it is known."""
        known = [one.attempts for one in self.scores.values() if one.attempts is not None]
        return to_int(sum(known)) if known else None


class Total(msgspec.Struct, frozen=True):
    """The sums over the assessments of which a learner's score and maximum are both known.

    All None where there are none. `percent` is None where the maxima come to no more than 0, and is
    clamped to 32 bits.
    """

    score: float | None = None
    max_score: float | None = None
    percent: int | None = None


def report_row(row: Mapping[str, object]) -> ReportRow | None:
    """Return what the report has of a row of `user_activity_agg`, as a scan gives it.

    None for a row of another context than a course batch. A null map is an empty one; where both
    `agg` and `aggregates` hold a key, `aggregates` wins, as in the group aggregate API. A value
    that is no finite number is not known; its assessment has been attempted all the same. A learner
    with other jobs' keys only is in the batch, and has attempted nothing.
    """
    context = str(row["context_id"])
    if not context.startswith(_CONTEXT):
        return None
    found: dict[str, list[float | None]] = {}
    for column in ("agg", "aggregates"):
        for name, value in _map(row, column).items():
            metric = _metric_of(name)
            if metric is not None:
                place, content = metric
                found.setdefault(content, [None, None, None])[place] = _number(value)
    scores = {
        content: AssessmentScore(score, most, None if count is None else to_int(count))
        for content, (score, most, count) in found.items()
    }
    return ReportRow(
        str(row["activity_id"]),
        context.removeprefix(_CONTEXT),
        str(row["user_id"]),
        scores,
        _updated_ms(_map(row, "agg_last_updated")),
    )


_PLACE = {prefix: place for place, prefix in enumerate(METRIC_PREFIXES)}


@lru_cache(100_000)  # the keys of one batch are alike, and to cut them is most of a row's cost
def _metric_of(name: str) -> tuple[int, str] | None:
    """Return which metric of ours a key of the maps is, and of which assessment."""
    metric, colon, content = name.partition(":")
    place = _PLACE.get(metric + colon)
    return None if place is None else (place, content)


def _map(row: Mapping[str, object], name: str) -> Mapping[str, object]:
    value = row.get(name)
    return value if isinstance(value, Mapping) else {}


def _number(value: object) -> float | None:
    """Return a finite number; the job in use today has stored some that are none."""
    return _finite(float(value)) if isinstance(value, int | float) else None


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _updated_ms(updated: Mapping[str, object]) -> int | None:
    times = [
        time
        for name, time in updated.items()
        if isinstance(time, int) and _metric_of(name) is not None
    ]
    return max(times, default=None)


def total_of(row: ReportRow) -> Total:
    """Return the learner's sums, and the one of the scores in percent of that of the maxima.

    Rounded up to whole percent, as the report in use today does. Computed with the numbers as
    they are written in decimals: 0.07 of 1 is 7 %, and not 8 because of a float's last bit.
    """
    pairs = [
        (one.score, one.max_score)
        for one in row.scores.values()
        if one.score is not None and one.max_score is not None
    ]
    if not pairs:
        return Total()
    scores, maxima = [_scaled(one) for one, _ in pairs], [_scaled(one) for _, one in pairs]
    if None in scores or None in maxima:
        exact = sum((_fraction(one) for one, _ in pairs), Fraction())
        most = sum((_fraction(one) for _, one in pairs), Fraction())
        percent = to_int(math.ceil(100 * exact / most)) if most > 0 else None
        return Total(_as_float(exact), _as_float(most), percent)
    score, maximum = sum(filter(None, scores)), sum(filter(None, maxima))
    percent = to_int(-(-100 * score // maximum)) if maximum > 0 else None
    return Total(score / _SCALE, maximum / _SCALE, percent)


def _scaled(number: float) -> int | None:
    """Return the number in millionths, None for one that is not written in so few digits.

    Most scores are, and whole numbers are added ten times as fast as fractions. With 15 digits
    there is one decimal to each float.
    """
    if not -_MOST < number < _MOST:
        return None
    scaled = round(number * _SCALE)
    return scaled if scaled / _SCALE == number else None


def _fraction(number: float) -> Fraction:
    return Fraction(repr(number))


def _as_float(value: Fraction) -> float | None:
    try:
        return float(value)
    except OverflowError:
        return None
