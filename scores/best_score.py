"""Which attempt is the best one, and how many attempts count."""

from __future__ import annotations

import math
from collections.abc import Iterable

import msgspec


# It holds nothing that could refer back to it: the garbage collector need not look at each of them.
class StoredAttempt(msgspec.Struct, frozen=True, gc=False):
    """What a read of `assessment_aggregator` gives for one attempt. Times in epoch ms and µs.

    The nullable columns are nullable here: other jobs write this table too. `write_us` is the
    write time of `last_attempted_on` and `has_created_on` tells whether that column is set; both
    are read only where a write follows.
    """

    content_id: str
    attempt_id: str
    last_attempted_on_ms: int | None
    total_score: float | None
    total_max_score: float | None
    write_us: int | None = None
    has_created_on: bool = False


class BestScore(msgspec.Struct, frozen=True):
    """The best attempt at one assessment and the number of attempts that count."""

    score: float
    max_score: float | None
    attempts_count: int
    attempt_id: str
    last_attempted_on_ms: int | None

    @property
    def rank(self) -> tuple[float, int, str]:
        """What the best is the greatest of: the score, then the later attempt, then its id."""
        return (self.score, _time(self.last_attempted_on_ms), self.attempt_id)

    def merge(self, other: BestScore) -> BestScore:
        """Combine the best scores of two disjoint sets of attempts; associative, commutative."""
        best = self if self.rank >= other.rank else other
        return msgspec.structs.replace(
            best, attempts_count=self.attempts_count + other.attempts_count
        )


def counts(attempt: StoredAttempt) -> bool:
    """Tell whether an attempt has a score: null and NaN, which an earlier job stored, do not."""
    return attempt.total_score is not None and math.isfinite(attempt.total_score)


def best_scores(attempts: Iterable[StoredAttempt]) -> dict[str, BestScore]:
    """Return the best score of each assessment by `content_id`, over the attempts that count."""
    best: dict[str, StoredAttempt] = {}
    number: dict[str, int] = {}
    for attempt in attempts:
        if not counts(attempt):
            continue
        content = attempt.content_id
        other = best.get(content)
        if other is None:
            best[content] = attempt
            number[content] = 1
            continue
        number[content] += 1
        if _rank(attempt) > _rank(other):
            best[content] = attempt
    return {
        content: BestScore(
            attempt.total_score,  # type: ignore[arg-type]  # counts() saw that it is a number
            attempt.total_max_score,
            number[content],
            attempt.attempt_id,
            attempt.last_attempted_on_ms,
        )
        for content, attempt in best.items()
    }


def _rank(attempt: StoredAttempt) -> tuple[float, int, str]:
    return (attempt.total_score or 0.0, _time(attempt.last_attempted_on_ms), attempt.attempt_id)


def _time(value_ms: int | None) -> int:
    return -(2**63) if value_ms is None else value_ms
