"""Score one attempt: which answers count, their sums, and the times that order its writes."""

from __future__ import annotations

import math
from fractions import Fraction

import msgspec

from group_scores.scores.event import Answer, AssessEvent, InvalidEventError

MAX_TRIES = 1000
"""Tries of one write: each has a time of its own inside its millisecond."""


class Question(msgspec.Struct, frozen=True):
    """One value of the `question` type. `assess_ts_ms` in epoch ms, `duration` in seconds."""

    id: str
    assess_ts_ms: int
    max_score: float
    score: float
    type: str | None
    title: str | None
    resvalues: list[dict[str, str]] | None
    params: list[dict[str, str]] | None
    description: str | None
    duration: int | float


class Attempt(msgspec.Struct, frozen=True):
    """One row of `assessment_aggregator`, but for the times of the write itself."""

    user_id: str
    course_id: str
    batch_id: str
    content_id: str
    attempt_id: str
    last_attempted_on_ms: int
    total_score: float
    total_max_score: float
    grand_total: str
    questions: list[Question]


def score_attempt(event: AssessEvent) -> Attempt | None:
    """Return the attempt's row, or None for an event without answers: there is nothing to score.

    Raises InvalidEventError where a sum is no finite number.
    """
    if not event.answers:
        return None
    counted = counting_answers(event.answers)
    total_score = _sum([answer.score for answer in counted], "events[].edata.score")
    total_max = _sum([answer.max_score for answer in counted], "events[].edata.item.maxscore")
    return Attempt(
        event.user_id,
        event.course_id,
        event.batch_id,
        event.content_id,
        event.attempt_id,
        event.assessment_ts_ms,
        total_score,
        total_max,
        f"{decimals(total_score)}/{decimals(total_max)}",
        [
            Question(
                answer.item_id,
                answer.ets_ms,
                answer.max_score,
                answer.score,
                answer.type,
                answer.title,
                answer.resvalues,
                answer.params,
                answer.description,
                answer.duration,
            )
            for answer in counted
        ],
    )


def counting_answers(answers: list[Answer]) -> list[Answer]:
    """Return one answer a question: the latest, on equal times the one that stands first.

    The order is that in which the questions first appear.
    """
    latest: dict[str, Answer] = {}
    for answer in answers:
        before = latest.get(answer.item_id)
        if before is None or answer.ets_ms > before.ets_ms:
            latest[answer.item_id] = answer
    return list(latest.values())


def decimals(value: float) -> str:
    """Format with one or two decimals, half-even on the exact value: `2.0`, `1.33`."""
    text = f"{value:.2f}".removesuffix("0")
    return "0.0" if text == "-0.0" else text


def _sum(values: list[float], field: str) -> float:
    try:
        return math.fsum(values)  # correctly rounded: no order of the answers changes it
    except OverflowError:
        pass  # a partial sum was out of range, which does depend on the order
    try:
        return float(sum(map(Fraction, values)))
    except OverflowError:
        raise InvalidEventError(field, "the sum is beyond the range of a double") from None


def attempt_write_time_us(
    last_attempted_on_ms: int, stored: tuple[int, int] | None, digits: int
) -> int:
    """Return the write time of an attempt's columns, in µs, so that the newest attempt wins.

    `stored` is what a read of the row gave: (WRITETIME(last_attempted_on) in µs,
    last_attempted_on in ms), or None. A row whose write time is not its attempt's own time (the
    job in use before wrote with wall-clock times; a device's clock can be years ahead) keeps its
    distance, so that the order over later attempts stays the order of the attempts. `digits`
    (0 to 999) are the µs below the millisecond: a repeated try takes greater ones, so that a try
    that timed out and its repetition are never equal (Cassandra would keep the elements of a
    list twice).
    """
    offset_ms = 0
    if stored is not None:
        offset_ms = stored[0] // 1000 - stored[1]
    return (last_attempted_on_ms + offset_ms) * 1000 + digits


def try_digits(first: int, tries: int) -> int:
    """Return the µs below the millisecond of a write that was tried `tries` times before.

    Each of MAX_TRIES has its own, greater than the one before it until all of the millisecond has
    been used: behind its last comes its first. A list that was overwritten at a greater time hides
    what comes with a smaller one, so that it is never held twice.
    """
    if not 0 <= tries < MAX_TRIES:
        raise ValueError(f"a write cannot be tried {tries + 1} times")
    return (first + tries) % MAX_TRIES


def created_on_write_time_us(now_us: int) -> int:
    """Return the write time of `created_on`: it falls as time goes on, so that the first wins.

    Below every wall-clock time, so that it never replaces what an earlier job wrote.
    """
    return -now_us
