"""How an attempt is scored, and the times that order its writes, by example."""

from __future__ import annotations

from typing import Any

import pytest

from group_scores.scores import Attempt, InvalidEventError, parse_event, score_attempt
from group_scores.scores.attempt import (
    MAX_TRIES,
    attempt_write_time_us,
    created_on_write_time_us,
    decimals,
    try_digits,
)
from group_scores.scores.event import FIELDS
from tests import event_values as ev
from tests import naive_event as naive

MAX = 1.7976931348623157e308


def scored(*answers: dict[str, Any]) -> Attempt:
    attempt = score_attempt(parse_event(ev.message(ev.event(*answers))))
    assert attempt is not None
    return attempt


def test_an_event_without_answers_scores_nothing() -> None:
    assert score_attempt(parse_event(ev.message(ev.event()))) is None


def test_of_several_answers_to_a_question_the_latest_counts() -> None:
    attempt = scored(
        ev.answer("q1", ets=5, score=1, title="first"),
        ev.answer("q2", ets=1, score=4, title="other"),
        ev.answer("q1", ets=9, score=0, title="latest", maxscore=3),
        ev.answer("q1", ets=7, score=8, title="between"),
    )
    assert [(q.id, q.title, q.assess_ts_ms) for q in attempt.questions] == [
        ("q1", "latest", 9),
        ("q2", "other", 1),
    ]
    assert (attempt.total_score, attempt.total_max_score) == (4.0, 4.0)
    assert attempt.grand_total == "4.0/4.0"


def test_of_equally_late_answers_the_one_that_stands_first_counts() -> None:
    attempt = scored(
        ev.answer("q", ets=3, score=1, title="earlier"),
        ev.answer("q", ets=5, score=2, title="first"),
        ev.answer("q", ets=5.0, score=3, title="second"),
    )
    assert [(q.title, q.score) for q in attempt.questions] == [("first", 2.0)]


def test_the_questions_stand_in_the_order_in_which_they_first_appear() -> None:
    order = ["q3", "q1", "q3", "q2", "q1"]
    attempt = scored(*(ev.answer(name, ets=at + 1) for at, name in enumerate(order)))
    assert [q.id for q in attempt.questions] == ["q3", "q1", "q2"]


@pytest.mark.parametrize(
    ("scores", "total"),
    [
        ([0.1] * 10, 1.0),
        ([0.1, 0.2, 0.3], 0.6),  # added one by one it is 0.6000000000000001
        ([1e100, 1.0, -1e100], 1.0),
        ([MAX, MAX, -MAX], MAX),
        ([-MAX, 1e308, -1e308, 1e308, MAX], 1e308),
        ([-0.0], 0.0),
    ],
)
def test_a_sum_is_rounded_once(scores: list[float], total: float) -> None:
    for order in (scores, scores[::-1], sorted(scores)):
        attempt = scored(*(ev.answer(f"q{i}", score=score) for i, score in enumerate(order)))
        assert attempt.total_score == naive.exact_sum(scores, "score") == total


@pytest.mark.parametrize("field", ["score", "maxscore"])
def test_a_sum_that_no_double_holds_is_refused(field: str) -> None:
    answers = [ev.answer(name, **{field: 1.7e308}) for name in ("q1", "q2")]
    event = parse_event(ev.message(ev.event(*answers)))
    with pytest.raises(InvalidEventError, match="beyond the range of a double") as refused:
        score_attempt(event)
    assert refused.value.field.endswith(f".{field}")
    assert refused.value.counted_as in FIELDS


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (2.0, "2.0"),
        (1.33, "1.33"),
        (0.0, "0.0"),
        (10.0, "10.0"),
        (100.5, "100.5"),
        (0.1, "0.1"),
        (0.105, "0.1"),  # the double is a little less than 0.105
        (0.125, "0.12"),  # a tie, and 2 is even
        (0.375, "0.38"),
        (2.5, "2.5"),
        (1.005, "1.0"),  # the double is a little less than 1.005
        (1.015, "1.01"),
        (0.999, "1.0"),
        (-1.5, "-1.5"),
        (-0.125, "-0.12"),
        (-0.001, "0.0"),
        (-0.0, "0.0"),
        (1 / 3, "0.33"),
        (1e15, "1000000000000000.0"),
        (1e22, "10000000000000000000000.0"),
    ],
)
def test_a_total_is_shown_with_one_or_two_decimals_half_to_even(value: float, text: str) -> None:
    assert decimals(value) == naive.two_decimals(value) == text


# ---------------------------------------------------------------- write times


def test_a_first_write_has_the_attempts_own_time() -> None:
    assert attempt_write_time_us(1_568_891_729_576, None, 0) == 1_568_891_729_576_000
    assert attempt_write_time_us(1_568_891_729_576, None, 123) == 1_568_891_729_576_123


def test_a_write_over_one_of_ours_has_the_attempts_own_time() -> None:
    assert attempt_write_time_us(2_000, (1_000_999, 1_000), 5) == 2_000_005


def test_a_write_over_a_wall_clock_write_keeps_its_distance() -> None:
    written_ms, attempted_ms = 1_700_000_000_000, 1_600_000_000_000
    stored = (written_ms * 1000 + 321, attempted_ms)
    assert attempt_write_time_us(attempted_ms + 1, stored, 7) == (written_ms + 1) * 1000 + 7


def test_a_write_over_a_row_whose_clock_was_ahead_keeps_its_distance() -> None:
    attempted_ms = 4_000_000_000_000
    stored = (1_700_000_000_000_000, attempted_ms)
    assert attempt_write_time_us(attempted_ms + 5, stored, 0) == 1_700_000_000_005_000


def test_the_tries_of_a_write_fit_below_a_millisecond() -> None:
    times = [attempt_write_time_us(1_000, None, try_digits(7, n)) for n in range(MAX_TRIES)]
    assert len(set(times)) == len(times)
    assert times[:-7] == sorted(times[:-7])
    assert max(times) < attempt_write_time_us(1_001, None, 0)
    with pytest.raises(ValueError, match="1001 times"):
        try_digits(7, MAX_TRIES)


def test_the_first_creation_wins() -> None:
    first, later = 1_700_000_000_000_000, 1_700_000_000_000_001
    assert created_on_write_time_us(first) > created_on_write_time_us(later)
    assert created_on_write_time_us(first) < 0  # below every wall-clock write
