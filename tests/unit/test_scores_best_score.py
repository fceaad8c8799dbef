"""Which attempt is the best, and how many count, by example."""

from __future__ import annotations

import math
from typing import Any

import pytest

from group_scores.scores import BestScore, StoredAttempt, best_scores
from group_scores.scores.best_score import counts


def stored(attempt_id: str = "a", score: float | None = 1.0, **fields: Any) -> StoredAttempt:
    plain: dict[str, Any] = {
        "content_id": "content",
        "last_attempted_on_ms": 1_000,
        "total_max_score": 5.0,
    }
    return StoredAttempt(attempt_id=attempt_id, total_score=score, **(plain | fields))


def test_of_no_attempts_there_is_no_best() -> None:
    assert best_scores([]) == {}


def test_the_greatest_score_is_the_best_and_brings_its_own_maximum() -> None:
    attempts = [
        stored("late", 2.0, last_attempted_on_ms=9_000, total_max_score=9.0),
        stored("best", 3.0, last_attempted_on_ms=1_000, total_max_score=4.0),
        stored("z", -1.0, last_attempted_on_ms=5_000),
    ]
    for order in (attempts, attempts[::-1]):
        assert best_scores(order) == {"content": BestScore(3.0, 4.0, 3, "best", 1_000)}


def test_of_equal_scores_the_later_attempt_is_the_best() -> None:
    attempts = [
        stored("z", 2.0, last_attempted_on_ms=1_000, total_max_score=1.0),
        stored("a", 2.0, last_attempted_on_ms=2_000, total_max_score=2.0),
    ]
    for order in (attempts, attempts[::-1]):
        assert best_scores(order) == {"content": BestScore(2.0, 2.0, 2, "a", 2_000)}


def test_of_equal_scores_at_one_time_the_greater_id_is_the_best() -> None:
    attempts = [stored("a10", 2.0), stored("a9", 2.0, total_max_score=2.0), stored("a1", 2.0)]
    for order in (attempts, attempts[::-1]):
        assert best_scores(order) == {"content": BestScore(2.0, 2.0, 3, "a9", 1_000)}


def test_each_assessment_has_a_best_of_its_own() -> None:
    assert best_scores(
        [
            stored("a", 1.0, content_id="one"),
            stored("b", 7.0, content_id="two", total_max_score=8.0),
            stored("c", 2.0, content_id="one"),
        ]
    ) == {
        "one": BestScore(2.0, 5.0, 2, "c", 1_000),
        "two": BestScore(7.0, 8.0, 1, "b", 1_000),
    }


@pytest.mark.parametrize("nothing", [None, math.nan, math.inf, -math.inf])
def test_an_attempt_without_a_finite_score_does_not_count(nothing: float | None) -> None:
    no_score = stored("none", nothing, last_attempted_on_ms=9_000)
    assert not counts(no_score)
    assert best_scores([no_score]) == {}
    assert best_scores([no_score, stored("a", -2.0)]) == {
        "content": BestScore(-2.0, 5.0, 1, "a", 1_000)
    }


@pytest.mark.parametrize("score", [0.0, -0.0, -3.0, 5e-324, 1.7976931348623157e308])
def test_any_finite_score_counts(score: float) -> None:
    assert best_scores([stored("a", score)])["content"].score == score


def test_a_missing_time_is_before_every_other() -> None:
    timeless = stored("z", 1.0, last_attempted_on_ms=None, total_max_score=None)
    assert best_scores([timeless]) == {"content": BestScore(1.0, None, 1, "z", None)}
    for order in ([timeless, stored("a", 1.0)], [stored("a", 1.0), timeless]):
        assert best_scores(order)["content"].attempt_id == "a"


def test_merging_adds_the_counts_and_keeps_the_better() -> None:
    worse, better = BestScore(1.0, 9.0, 2, "z", 9_000), BestScore(1.5, 2.0, 3, "a", 1_000)
    assert worse.merge(better) == better.merge(worse) == BestScore(1.5, 2.0, 5, "a", 1_000)
