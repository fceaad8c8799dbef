"""Properties of scoring: no order changes a sum, and no history the order of the writes."""

from __future__ import annotations

import random
from fractions import Fraction

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from group_scores.scores import InvalidEventError, parse_event, score_attempt
from group_scores.scores.attempt import (
    attempt_write_time_us,
    counting_answers,
    created_on_write_time_us,
    decimals,
)
from group_scores.scores.event import Answer
from tests import event_values as ev
from tests import naive_event as naive

finite = st.floats(allow_nan=False, allow_infinity=False)
MAX = 1.7976931348623157e308


@given(st.lists(st.tuples(finite, finite.map(abs)), min_size=1, max_size=6), st.randoms())
@example([(MAX, MAX), (MAX, 0), (-MAX, 0), (-MAX, 0)], None)
@example([(MAX, MAX), (MAX, 0), (-MAX, 0), (1e-320, 0)], None)
@example([(MAX, MAX), (9.979201547673598e291, 0)], None)  # rounds to the greatest double
@example([(MAX, MAX), (9.979201547673599e291, 0)], None)  # is half way to one beyond
def test_sums_depend_on_no_order_and_are_rounded_once(
    scores: list[tuple[float, float]], shuffler: random.Random | None
) -> None:
    answers = [ev.answer(f"q{i}", score=s, maxscore=m) for i, (s, m) in enumerate(scores)]
    shuffled = list(answers)
    if shuffler:
        shuffler.shuffle(shuffled)
    outcomes: list[tuple[str, float | None, float | None]] = []
    for order in (answers, shuffled, answers[::-1]):
        try:
            attempt = score_attempt(parse_event(ev.message(ev.event(*order))))
        except InvalidEventError as error:
            outcomes.append((error.field, None, None))
            continue
        assert attempt is not None
        outcomes.append((attempt.grand_total, attempt.total_score, attempt.total_max_score))
    assert outcomes == outcomes[:1] * 3
    _, total, total_max = outcomes[0]
    exact = sum(Fraction(score) for score, _ in scores), sum(Fraction(m) for _, m in scores)
    if total is None or total_max is None:
        with pytest.raises(OverflowError):
            assert [float(each) for each in exact]
    else:
        assert (total, total_max) == (float(exact[0]), float(exact[1]))


_answers = st.builds(
    Answer,
    item_id=st.sampled_from(["q1", "q2", "q3"]),
    ets_ms=st.integers(1, 4),
    score=st.integers(0, 9).map(float),
    max_score=st.just(1.0),
)


@given(st.lists(_answers, max_size=8))
def test_one_answer_a_question_counts_the_first_of_the_latest(answers: list[Answer]) -> None:
    counted = counting_answers(answers)
    assert [a.item_id for a in counted] == list(dict.fromkeys(a.item_id for a in answers))
    for answer in counted:
        others = [a for a in answers if a.item_id == answer.item_id]
        assert answer.ets_ms == max(a.ets_ms for a in others)
        assert answer is next(a for a in others if a.ets_ms == answer.ets_ms)
    assert counting_answers(counted) == counted


@given(finite | st.integers(-100_000, 100_000).map(lambda thousandths: thousandths / 1000))
def test_decimals_are_the_exact_value_rounded_half_to_even(value: float) -> None:
    text = decimals(value)
    assert text == naive.two_decimals(value)
    assert Fraction(text) * 100 == round(Fraction(value) * 100)
    _, _, fraction = text.partition(".")
    assert len(fraction) == 1 or (len(fraction) == 2 and fraction[1] != "0")


# ---------------------------------------------------------------- write times

times_ms = st.integers(1, ev.MAX_TIME_MS)
digits = st.integers(0, 999)


@given(
    st.none() | st.tuples(st.integers(-(2**61), 2**61), st.integers(-(10**15), 10**15)),
    st.lists(st.tuples(times_ms | st.integers(1, 9), digits), min_size=1, max_size=6),
    st.data(),
)
def test_the_newest_attempt_wins_whatever_was_stored_and_whoever_read_what(
    before: tuple[int, int] | None, versions: list[tuple[int, int]], data: st.DataObject
) -> None:
    """Each writer reads the row as it was at first or as an earlier version left it."""
    rows = [before]
    written: list[tuple[int, int]] = []  # write time, last_attempted_on
    for attempted_ms, digit in sorted(versions):
        if before is not None and attempted_ms <= before[1]:
            continue  # not newer: it is not written
        stored = data.draw(st.sampled_from(rows))
        write_us = attempt_write_time_us(attempted_ms, stored, digit)
        assert before is None or write_us > before[0]
        written.append((write_us, attempted_ms))
        rows.append((write_us, attempted_ms))
    assert max(written, default=None) == max(written, key=lambda w: (w[1], w[0]), default=None)
    for write_us, attempted_ms in written:
        for other_us, other_ms in written:
            assert (write_us < other_us) or attempted_ms >= other_ms


@given(times_ms, st.none() | st.tuples(st.integers(-(2**61), 2**61), times_ms), digits, digits)
def test_a_repeated_try_is_later_and_in_the_same_millisecond(
    attempted_ms: int, stored: tuple[int, int] | None, one: int, other: int
) -> None:
    first = attempt_write_time_us(attempted_ms, stored, one)
    second = attempt_write_time_us(attempted_ms, stored, other)
    assert (first < second) == (one < other)
    assert first // 1000 == second // 1000


@given(st.integers(1, 2**62), st.integers(1, 2**62))
def test_the_earlier_creation_has_the_greater_time(one_us: int, other_us: int) -> None:
    one, other = created_on_write_time_us(one_us), created_on_write_time_us(other_us)
    assert (one > other) == (one_us < other_us)
    assert max(one, other) < 0
