"""Attempts read back from `agg_details`."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from group_scores.scores import StoredAttempt, agg_details
from group_scores.scores.aggregate import detail_time
from group_scores.scores.detail import DetailedAttempt, detail_time_ms, read_details

attempts = st.lists(
    st.builds(
        StoredAttempt,
        st.text(max_size=5),
        st.text(max_size=5),
        st.none() | st.integers(-(10**13), 10**14),
        st.floats(allow_nan=False, allow_infinity=False),
        st.none() | st.floats(allow_nan=False, allow_infinity=False),
    ),
    max_size=8,
)


@given(attempts)
@example([StoredAttempt("", "", None, -0.0, None)])
def test_are_what_was_written(stored: list[StoredAttempt]) -> None:
    wanted = [
        DetailedAttempt(
            one.attempt_id,
            one.content_id,
            one.total_score + 0.0,  # a minus zero is written as a zero
            one.total_max_score,
            None if one.last_attempted_on_ms is None else one.last_attempted_on_ms // 1000 * 1000,
        )
        for one in stored
    ]
    found = read_details(agg_details(stored))
    key = lambda one: (one.content_id, one.attempted_ms or 0, one.attempt_id)  # noqa: E731
    assert sorted(map(repr, found)) == sorted(map(repr, wanted))
    assert [key(one) for one in found] == sorted(key(one) for one in found)


@given(st.integers(-(10**13), 10**14))
def test_a_time_is_read_back_to_the_second(time_ms: int) -> None:
    text = detail_time(time_ms)
    assert detail_time_ms(text) == time_ms // 1000 * 1000
    assert text is not None
    assert detail_time_ms(text.replace(" AM", "\u202fAM").replace(" PM", "\u202fPM")) == (
        time_ms // 1000 * 1000
    )


@pytest.mark.parametrize(
    "text",
    [None, 7, "", "2019-09-24", "Sep 31, 2019, 5:59:17 AM", "Foo 1, 2019, 5:59:17 AM", "Sep"],
)
def test_a_time_of_another_form_is_not_known(text: object) -> None:
    assert detail_time_ms(text) is None


@pytest.mark.parametrize(
    ("fields", "score", "most"),
    [
        ({"score": "7"}, None, None),
        ({"score": True, "max_score": None}, None, None),
        ({"score": 10**400, "max_score": 3}, None, 3.0),
        ({"score": 1, "max_score": 0}, 1.0, 0.0),
    ],
)
def test_a_value_of_another_kind_is_not_known(
    fields: dict[str, Any], score: float | None, most: float | None
) -> None:
    (found,) = read_details([json.dumps({"content_id": "a"} | fields)])
    assert (found.score, found.max_score, found.percent) == (score, most, None)


def test_an_entry_that_is_not_readable_is_left_out() -> None:
    assert read_details(["", "null", "[]", "{", '{"score": 1}', '{"content_id": 3}']) == []
