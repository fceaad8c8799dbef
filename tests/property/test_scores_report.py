"""The rules of the report: percentages, sums, what is not known."""

from __future__ import annotations

import math
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from group_scores.reports.distribution import Distribution
from group_scores.scores.aggregate import to_int
from group_scores.scores.report import AssessmentScore, ReportRow, Total, report_row, total_of
from tests.values import texts

wild = st.floats() | st.none()
quarters = st.integers(0, 400).map(lambda number: number / 4)
mixed = st.one_of(
    st.integers(-9, 2_000_000_000).map(float),
    st.decimals(1, 999_999, places=6).map(float),
    st.decimals(1, 999_999, places=9).map(float),
)
hundredths = st.integers(0, 10_000).map(lambda number: number / 100)


def stored(**columns: Any) -> dict[str, Any]:
    key = {"activity_type": "Course", "activity_id": "c", "user_id": "u", "context_id": "cb:b"}
    return key | {"agg": {}, "aggregates": {}, "agg_last_updated": {}} | columns


def made(**columns: Any) -> ReportRow:
    row = report_row(stored(**columns))
    assert row is not None
    return row


def of_pairs(*pairs: tuple[float | None, float | None]) -> ReportRow:
    scores = {str(n): AssessmentScore(*pair, 1) for n, pair in enumerate(pairs)}
    return ReportRow("c", "b", "u", scores, None)


class TestRow:
    def test_has_what_both_maps_hold_and_aggregates_wins(self) -> None:
        row = made(
            agg={"score:a": 1, "max_score:a": 2, "attempts_count:a": 3, "completedCount": 9},
            aggregates={"score:a": 1.5, "score:b": 0.0},
            agg_last_updated={"score:a": 5, "score:b": 7, "completedCount": 99},
        )
        assert row == ReportRow(
            "c",
            "b",
            "u",
            {"a": AssessmentScore(1.5, 2.0, 3), "b": AssessmentScore(0.0, None, None)},
            7,
        )

    @pytest.mark.parametrize("column", ["agg", "aggregates"])
    @pytest.mark.parametrize("other", [{}, None, "absent"])
    def test_has_what_one_map_holds(self, column: str, other: Any) -> None:
        columns = {"agg": other, "aggregates": other} | {column: {"score:a": 2}}
        row = stored(**columns)
        if other == "absent":
            row = {name: value for name, value in row.items() if value != "absent"}
        found = report_row(row)
        assert found is not None
        assert found.scores == {"a": AssessmentScore(2.0, None, None)}

    def test_of_null_maps_has_attempted_nothing(self) -> None:
        row = made(agg=None, aggregates=None, agg_last_updated=None)
        assert (row.scores, row.updated_ms, row.attempts) == ({}, None, None)
        assert total_of(row) == Total(None, None, None)

    def test_of_another_context_is_none(self) -> None:
        assert report_row(stored(context_id="other:b")) is None

    def test_tells_what_is_not_attempted_from_a_score_of_0(self) -> None:
        row = made(agg={"score:a": 0, "max_score:a": 5})
        assert row.scores["a"].percent == 0
        assert "b" not in row.scores
        assert total_of(row) == Total(0, 5, 0)

    def test_takes_an_id_with_colons_whole(self) -> None:
        assert set(made(agg={"score:a:b:c": 1, "score": 2, "score:": 3}).scores) == {"a:b:c", ""}

    @given(
        agg=st.none() | st.dictionaries(texts, st.integers(-(2**31), 2**31 - 1), max_size=4),
        aggregates=st.none() | st.dictionaries(st.sampled_from(["score:a", "max_score:a"]), wild),
    )
    def test_holds_finite_numbers_whatever_is_stored(self, agg: Any, aggregates: Any) -> None:
        row = made(agg=agg, aggregates=aggregates)
        total = total_of(row)
        numbers = [total.score, total.max_score, total.percent]
        for one in row.scores.values():
            numbers += [one.score, one.max_score, one.percent, one.attempts]
        assert all(number is None or math.isfinite(number) for number in numbers)


class TestTotal:
    @given(st.lists(st.tuples(hundredths, hundredths), min_size=1, max_size=5))
    def test_is_the_sum_in_percent_rounded_up(self, pairs: list[tuple[float, float]]) -> None:
        total = total_of(of_pairs(*pairs))
        score = sum((Decimal(str(one)) for one, _ in pairs), Decimal())
        most = sum((Decimal(str(one)) for _, one in pairs), Decimal())
        assert (total.score, total.max_score) == (float(score), float(most))
        if not most:
            assert total.percent is None
            return
        assert total.percent is not None
        exact = Fraction(score) * 100 / Fraction(most)
        assert exact <= min(total.percent, 2**31 - 1) < exact + 1

    @given(st.lists(st.tuples(mixed, mixed), min_size=1, max_size=4))
    def test_is_exact_with_as_many_digits_as_there_are(
        self, pairs: list[tuple[float, float]]
    ) -> None:
        total = total_of(of_pairs(*pairs))
        score = sum((Fraction(repr(one)) for one, _ in pairs), Fraction())
        most = sum((Fraction(repr(one)) for _, one in pairs), Fraction())
        assert (total.score, total.max_score) == (float(score), float(most))
        assert total.percent == (to_int(math.ceil(100 * score / most)) if most > 0 else None)

    @given(st.lists(st.tuples(quarters, quarters), min_size=1, max_size=5))
    def test_of_scores_within_their_maxima_is_from_0_to_100(
        self, pairs: list[tuple[float, float]]
    ) -> None:
        total = total_of(of_pairs(*((min(pair), max(pair)) for pair in pairs)))
        assert total.percent is None or 0 <= total.percent <= 100

    @pytest.mark.parametrize(
        ("pairs", "percent"),
        [
            ([(0.07, 1.0)], 7),
            ([(0.1, 0.3), (0.2, 0.3), (0.3, 0.3)], 67),
            ([(1.0, 3.0)], 34),
            ([(1.0, 3.0), (None, 5.0), (4.0, None)], 34),
            ([(0.0, 5.0)], 0),
            ([(0.001, 1000.0)], 1),
            ([(0.0, 0.0)], None),
            ([(None, 5.0)], None),
            ([(7.0, 5.0)], 140),
            ([(-1.0, 3.0)], -33),
            ([(1e308, 1e-308)], 2**31 - 1),
        ],
    )
    def test_of_examples(self, pairs: Any, percent: int | None) -> None:
        assert total_of(of_pairs(*pairs)).percent == percent


@given(st.lists(wild))
def test_a_distribution_counts_everybody_once(percents: list[float | None]) -> None:
    known = [p if p is None or math.isfinite(p) else None for p in percents]
    spread = Distribution()
    for percent in known:
        spread.add_percent(percent)
    assert spread.attempted == len(percents)
    assert spread.unknown == sum(percent is None for percent in known)


@pytest.mark.parametrize(
    ("percent", "place"), [(-5, 0), (0, 0), (9.99, 0), (10, 1), (99.99, 9), (100, 9), (250, 9)]
)
def test_a_distribution_has_bins_of_a_tenth(percent: float, place: int) -> None:
    spread = Distribution()
    spread.add_percent(percent)
    assert spread.bins[place] == 1
