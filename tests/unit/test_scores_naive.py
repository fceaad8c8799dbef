"""The naive recomputation itself: what it expects, and that its comparisons can fail."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from tests import event_values as ev
from tests import naive

KEY = ("user", "do_course", "batch", "do_content", "attempt")
ASKED = {("user", "do_course", "batch", "do_content")}


def sent(time_ms: int, score: float, **fields: Any) -> bytes:
    answer = ev.answer("q", score=score, maxscore=5, duration=2)
    return ev.message(ev.event(answer, assessmentTs=time_ms, **fields))


def scores(messages: list[bytes], existing: list[dict[str, Any]] | None = None) -> list[float]:
    expected = naive.expected_attempts(messages, existing or [])
    assert list(expected) == [KEY]
    return [row["total_score"] for row in expected[KEY]]


def test_the_latest_version_stands_whatever_the_order_and_the_repetitions() -> None:
    old, new = sent(1, 4), sent(2, 3)
    for messages in ([old, new], [new, old], [old, new, old, old, new]):
        assert scores(messages) == [3.0]


def test_of_different_versions_at_one_time_each_may_stand() -> None:
    assert scores([sent(2, 3), sent(2, 4), sent(1, 5), sent(2, 3)]) == [3.0, 4.0]


def test_rows_that_were_there_before_count() -> None:
    (earlier,) = naive.expected_attempts([sent(5, 1)])[KEY]
    assert scores([sent(4, 2)], [earlier]) == [1.0]
    assert scores([sent(5, 2)], [earlier]) == [1.0, 2.0]
    assert scores([sent(6, 2)], [earlier]) == [2.0]


def test_dead_letters_and_events_without_answers_make_no_rows() -> None:
    broken, empty = sent(0, 1), ev.message(ev.event(contentId="other"))
    assert naive.expected_attempts([broken, empty, b"x"]) == {}
    assert naive.dead_letters([broken, empty, b"x", b"x"]) == {broken, b"x"}
    assert naive.asked_for([broken, empty, b"x"]) == {("user", "do_course", "batch", "other")}


def test_a_wrapped_dead_letter_is_read_as_what_it_holds() -> None:
    metadata = {"src": "AssessmentAggregator"}
    event = sent(1, 4)
    for wrapped in (
        {"raw": event.decode(), "metadata": metadata},
        {"raw": base64.b64encode(event).decode(), "encoding": "base64", "metadata": metadata},
    ):
        assert scores([json.dumps(wrapped).encode()]) == [4.0]


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("total_score", 4.0),
        ("total_max_score", None),
        ("grand_total", "3/5"),
        ("last_attempted_on", 1),
        ("question", []),
    ],
)
def test_a_column_that_differs_is_found(column: str, value: Any) -> None:
    messages = [sent(1, 4), sent(2, 3)]
    (row,) = naive.expected_attempts(messages)[KEY]
    written = row | {"created_on": 5, "updated_on": 6}
    assert naive.compare_attempts([written], messages) == []
    assert len(naive.compare_attempts([written | {column: value}], messages)) == 1


def test_a_mixture_of_versions_a_missing_row_and_one_too_many_are_found() -> None:
    messages = [sent(2, 3), sent(2, 4)]
    one, other = naive.expected_attempts(messages)[KEY]
    assert naive.compare_attempts([one], messages) == naive.compare_attempts([other], messages)
    assert naive.compare_attempts([one | {"total_score": 4.0}], messages)
    assert naive.compare_attempts([], messages) == [f"{KEY}: the row is missing"]
    assert len(naive.compare_attempts([one, one | {"user_id": "nobody"}], messages)) == 1


def aggregates(messages: list[bytes], **columns: Any) -> list[dict[str, Any]]:
    rows = [versions[0] for versions in naive.expected_attempts(messages).values()]
    ((course, user, context),) = (expected := naive.expected_aggregates(rows, ASKED))
    row = {"activity_id": course, "user_id": user, "context_id": context}
    return [row | expected[course, user, context] | columns]


MESSAGES = [sent(1, 4), sent(2, 3.75, attemptId="again"), sent(3, 9, contentId="other")]
ROWS = [versions[0] for versions in naive.expected_attempts(MESSAGES).values()]


def test_an_aggregate_is_worked_out_from_the_attempts() -> None:
    assert naive.expected_aggregates(ROWS, ASKED) == {
        ("do_course", "user", "cb:batch"): {
            "agg": {
                "score:do_content": 4,
                "max_score:do_content": 5,
                "attempts_count:do_content": 2,
            },
            "aggregates": {
                "score:do_content": 4.0,
                "max_score:do_content": 5.0,
                "attempts_count:do_content": 2.0,
            },
            "agg_details": [
                '{"attempt_id":"attempt","last_attempted_on":"Jan 1, 1970, 12:00:00 AM",'
                '"score":4.0,"content_id":"do_content","max_score":5.0,"type":"attempt_metrics"}',
                '{"attempt_id":"again","last_attempted_on":"Jan 1, 1970, 12:00:00 AM",'
                '"score":3.75,"content_id":"do_content","max_score":5.0,"type":"attempt_metrics"}',
                '{"attempt_id":"attempt","last_attempted_on":"Jan 1, 1970, 12:00:00 AM",'
                '"score":9.0,"content_id":"other","max_score":5.0,"type":"attempt_metrics"}',
            ],
        }
    }


def test_what_was_not_asked_for_has_no_row_but_for_details() -> None:
    nothing = {("user", "do_course", "batch", "unknown"), ("nobody", "do_course", "batch", "c")}
    (row,) = naive.expected_aggregates(ROWS, nothing).values()
    assert (row["agg"], len(row["agg_details"])) == ({}, 3)
    assert naive.expected_aggregates(ROWS, nothing, details=False) == {}


@pytest.mark.parametrize(
    "columns",
    [
        {"agg": {"score:do_content": 4}},
        {"agg": None},
        {"aggregates": {"score:do_content": 3.75}},
        {"agg_details": None},
        {"agg_details": []},
        {"context_id": "batch"},
    ],
)
def test_an_aggregate_that_differs_is_found(columns: dict[str, Any]) -> None:
    actual = aggregates(MESSAGES)
    assert naive.compare_aggregates(actual, ROWS, ASKED) == []
    assert naive.compare_aggregates([actual[0] | columns], ROWS, ASKED)
    assert naive.compare_aggregates([], ROWS, ASKED)


def test_details_that_are_doubled_in_another_order_or_not_compact_are_found() -> None:
    (row,) = aggregates(MESSAGES)
    details = row["agg_details"]
    spaced = [json.dumps(json.loads(detail)) for detail in details]
    resorted = [json.dumps(json.loads(d), sort_keys=True, separators=(",", ":")) for d in details]
    for wrong in (details * 2, details[::-1], spaced, resorted, details[:2]):
        assert naive.compare_aggregates([row | {"agg_details": wrong}], ROWS, ASKED)


def test_other_keys_and_columns_the_table_lacks_are_not_compared() -> None:
    (row,) = aggregates(MESSAGES)
    row["agg"] = row["agg"] | {"completedCount": 7}
    del row["aggregates"]
    del row["agg_details"]
    assert naive.compare_aggregates([row], ROWS, ASKED) == []
