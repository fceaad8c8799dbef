"""Properties of best scores and aggregates: no order matters, and both equal the naive ones."""

from __future__ import annotations

import itertools
import json
from functools import reduce
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from group_scores.scores import (
    METRICS,
    ActivityKey,
    BestScore,
    StoredAttempt,
    activity_agg,
    agg_details,
    best_scores,
)
from group_scores.scores.aggregate import detail_time, to_int
from group_scores.scores.certificate import certificate_attempt_id
from tests import event_values as ev
from tests import naive

KEY = ActivityKey("course", "user", "batch")
YEAR_1_MS = -62_135_596_800_000

scores = st.sampled_from([None, float("nan"), float("inf"), 1.0, 2.0, -0.0, 0.0]) | st.floats()
attempts = st.lists(
    st.builds(
        StoredAttempt,
        content_id=st.sampled_from(["do_1", "do_2", "do_10"]) | ev.ids,
        attempt_id=st.sampled_from(["a", "b", "c"]) | ev.ids,
        last_attempted_on_ms=st.none() | st.integers(1, 3) | st.integers(1, ev.MAX_TIME_MS),
        total_score=scores,
        total_max_score=scores,
    ),
    max_size=8,
    unique_by=lambda attempt: (attempt.content_id, attempt.attempt_id),
)


def row(attempt: StoredAttempt) -> dict[str, Any]:
    """The row as `dump` prints it."""
    return {
        "user_id": KEY.user_id,
        "course_id": KEY.course_id,
        "batch_id": KEY.batch_id,
        "content_id": attempt.content_id,
        "attempt_id": attempt.attempt_id,
        "last_attempted_on": attempt.last_attempted_on_ms,
        "total_score": attempt.total_score,
        "total_max_score": attempt.total_max_score,
    }


@given(attempts, st.sets(st.sampled_from(["do_1", "do_2", "do_3"])))
def test_an_aggregate_equals_the_naive_recomputation(
    stored: list[StoredAttempt], contents: set[str]
) -> None:
    best = best_scores(attempt for attempt in stored if attempt.content_id in contents)
    agg = activity_agg(KEY, 1, best, details=agg_details(stored))
    actual = [
        {
            "activity_id": KEY.course_id,
            "user_id": KEY.user_id,
            "context_id": KEY.context_id,
            "agg": agg.agg,
            "aggregates": agg.metrics,
            "agg_details": agg.details,
        }
    ]
    asked = {(KEY.user_id, KEY.course_id, KEY.batch_id, content) for content in contents}
    if not naive.expected_aggregates(map(row, stored), asked):
        assert not agg.metrics
        assert not agg.details or not asked
        return
    assert naive.compare_aggregates(actual, map(row, stored), asked) == []


@given(attempts, st.randoms())
def test_no_order_of_the_attempts_changes_anything(
    stored: list[StoredAttempt], shuffler: Any
) -> None:
    shuffled = list(stored)
    shuffler.shuffle(shuffled)
    assert repr(sorted(best_scores(shuffled).items())) == repr(sorted(best_scores(stored).items()))
    assert agg_details(shuffled) == agg_details(stored)
    assert certificate_attempt_id(shuffled) == certificate_attempt_id(stored)


@given(attempts, st.lists(st.integers(0, 2), min_size=8, max_size=8))
def test_merging_the_parts_gives_the_best_of_the_whole(
    stored: list[StoredAttempt], part_of: list[int]
) -> None:
    parts: list[list[StoredAttempt]] = [[], [], []]
    for attempt, part in zip(stored, part_of, strict=False):
        parts[part].append(attempt)
    for content, whole in best_scores(stored).items():
        found = [best_scores(part)[content] for part in parts if content in best_scores(part)]
        for order in itertools.permutations(found):
            assert repr(reduce(BestScore.merge, order)) == repr(whole)  # associative from the left
            merged = reduce(lambda right, left: left.merge(right), order)  # and from the right
            assert repr(merged) == repr(whole)


@given(attempts)
def test_the_rank_is_a_total_order(stored: list[StoredAttempt]) -> None:
    by_content: dict[str, list[BestScore]] = {}
    for attempt in stored:
        for content, best in best_scores([attempt]).items():
            by_content.setdefault(content, []).append(best)
    for each in by_content.values():
        assert len({best.rank for best in each}) == len(each)  # no two are equal
        ordered = sorted(each, key=lambda best: best.rank)
        for lower, higher in itertools.combinations(ordered, 2):
            assert lower.rank < higher.rank
            assert lower.score <= higher.score
            if lower.score == higher.score and lower.last_attempted_on_ms is not None:
                assert higher.last_attempted_on_ms is not None
                assert lower.last_attempted_on_ms <= higher.last_attempted_on_ms


@given(st.floats(allow_nan=False, allow_infinity=False) | st.integers(0, 2**40))
def test_an_integer_is_the_nearest_towards_zero_that_32_bits_hold(value: float) -> None:
    stored = to_int(value)
    assert -(2**31) <= stored <= 2**31 - 1
    if -(2**31) <= value <= 2**31 - 1:
        assert abs(stored) <= abs(value) < abs(stored) + 1
        assert stored == 0 or (stored < 0) == (value < 0)
    else:
        assert stored == (-(2**31) if value < 0 else 2**31 - 1)


@given(st.integers(YEAR_1_MS, ev.MAX_TIME_MS) | st.integers(0, 200_000_000_000))
def test_a_time_is_shown_as_the_naive_one(time_ms: int) -> None:
    assert detail_time(time_ms) == naive.printed_time(time_ms)


@given(st.integers() | st.sampled_from([YEAR_1_MS, YEAR_1_MS - 1, ev.MAX_TIME_MS + 1]))
def test_a_time_is_left_out_where_no_calendar_shows_it(time_ms: int) -> None:
    assert (detail_time(time_ms) is None) == (not YEAR_1_MS <= time_ms <= ev.MAX_TIME_MS)


@given(attempts)
def test_a_detail_is_compact_json_of_six_keys(stored: list[StoredAttempt]) -> None:
    for detail in agg_details(stored):
        read, has_spaces = naive.read_detail(detail)
        assert [name for name, _ in read] == [
            "attempt_id",
            "last_attempted_on",
            "score",
            "content_id",
            "max_score",
            "type",
        ]
        assert not has_spaces
        assert "\n" not in detail
        json.loads(detail, parse_constant=lambda name: 1 / 0)


@given(
    st.dictionaries(
        ev.ids,
        st.builds(
            BestScore,
            score=st.floats(allow_nan=False, allow_infinity=False),
            max_score=st.none() | st.floats(),
            attempts_count=st.integers(1, 2**40),
            attempt_id=ev.ids,
            last_attempted_on_ms=st.none() | st.integers(1, 9),
        ),
        max_size=4,
    ),
    st.lists(st.sampled_from(METRICS), unique=True),
)
def test_every_metric_of_every_content_has_its_own_key(
    best: dict[str, BestScore], metrics: list[str]
) -> None:
    agg = activity_agg(KEY, 5_000, best, metrics)
    written = {
        f"{metric}:{content}": {
            "score": each.score,
            "max_score": naive.finite_or_none(each.max_score),
            "attempts_count": each.attempts_count,
        }[metric]
        for content, each in best.items()
        for metric in metrics
    }
    assert agg.metrics == {name: value for name, value in written.items() if value is not None}
    assert agg.agg == {name: to_int(value) for name, value in agg.metrics.items()}
    assert agg.updated_ms == 5
