"""The tables recomputed from the contract, slowly and plainly, with the standard library alone.

It shares no line with the pipeline, so that a rule misread there does not hide here. Everything
is worked out from the whole input at once: no batches, no order, no earlier state but the rows
that are handed in. Where the contract leaves something open, the function that decides says so.

    expected_attempts(messages)            key of five ids -> the rows that may stand there
    dead_letters(messages)                 the messages that must be rejected
    asked_for(messages)                    the assessments that had a valid event
    expected_aggregates(rows, asked)       (course, user, context_id) -> the row's values
    compare_attempts(actual, messages)     what is wrong, a line each; no line: they agree
    compare_aggregates(actual, rows, asked)
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from tests.naive_event import KEY_COLUMNS, Asked, Refused, Row, read_message

AttemptKey = tuple[str, str, str, str, str]  # user, course, batch, content, attempt
ActivityKey = tuple[str, str, str]  # course, user, context_id

ATTEMPT_COLUMNS = (
    *KEY_COLUMNS,
    "last_attempted_on",
    "total_score",
    "total_max_score",
    "grand_total",
    "question",
)
METRICS = ("score", "max_score", "attempts_count")

MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def refusal(message: bytes) -> str | None:
    """The field for which a message must become a dead letter, or None."""
    try:
        read_message(message)
    except Refused as refused:
        return str(refused)
    return None


def dead_letters(messages: Iterable[bytes]) -> set[bytes]:
    """The messages that must be dead letters."""
    return {message for message in messages if refusal(message) is not None}


def asked_for(messages: Iterable[bytes]) -> set[Asked]:
    """(user, course, batch, content) of every valid event, those without answers too."""
    asked = set()
    for message in messages:
        try:
            asked.add(read_message(message)[0])
        except Refused:
            continue
    return asked


def expected_attempts(
    messages: Iterable[bytes], existing: Iterable[Mapping[str, Any]] = ()
) -> dict[AttemptKey, list[Row]]:
    """The rows of assessment_aggregator after all messages, `created_on`, `updated_on` left out.

    `existing` are the rows that stood there before. The value is a list: of different versions
    with one assessmentTs any whole one may stand. Messages may come in any order and repeatedly.
    """
    versions: dict[AttemptKey, list[Row]] = {}
    for row in existing:
        versions.setdefault(attempt_key(row), []).append(comparable(row))
    for message in messages:
        try:
            _, attempt = read_message(message)
        except Refused:
            continue
        if attempt is not None:
            versions.setdefault(attempt_key(attempt), []).append(attempt)
    expected = {}
    for key, candidates in versions.items():
        latest = max(row["last_attempted_on"] or 0 for row in candidates)
        allowed: list[Row] = []
        for row in candidates:
            if (row["last_attempted_on"] or 0) == latest and row not in allowed:
                allowed.append(row)
        expected[key] = allowed
    return expected


def attempt_key(row: Mapping[str, Any]) -> AttemptKey:
    user, course, batch, content, attempt = (row[column] for column in KEY_COLUMNS)
    return user, course, batch, content, attempt


def comparable(row: Mapping[str, Any]) -> Row:
    """The columns that are compared; a duration, a decimal in the table, as a double."""
    chosen = {column: row.get(column) for column in ATTEMPT_COLUMNS}
    chosen["question"] = [
        question | {"duration": float(question["duration"] or 0)}
        for question in row.get("question") or []
    ]
    return chosen


def compare_attempts(
    actual: Iterable[Mapping[str, Any]],
    messages: Iterable[bytes],
    existing: Iterable[Mapping[str, Any]] = (),
) -> list[str]:
    """How the rows that `dump --table attempts` prints differ from what they must be."""
    expected = expected_attempts(messages, existing)
    found = {attempt_key(row): comparable(row) for row in actual}
    wrong = [f"{key}: no such row is expected" for key in found if key not in expected]
    for key, allowed in expected.items():
        if key not in found:
            wrong.append(f"{key}: the row is missing")
        elif found[key] not in allowed:
            wrong.append(f"{key}: is {found[key]}, may be {allowed}")
    return wrong


def counts(row: Mapping[str, Any]) -> bool:
    """An attempt without a finite total_score counts nowhere."""
    score = row["total_score"]
    return score is not None and math.isfinite(score)


def expected_aggregates(
    rows: Iterable[Mapping[str, Any]], asked: Iterable[Asked], *, details: bool = True
) -> dict[ActivityKey, Row]:
    """The rows of user_activity_agg after the assessments `asked` for were computed from `rows`.

    Only the metric keys of assessments that were asked for are written; `agg_details` holds all
    attempts of the learner in the batch. Nothing is written for a learner without attempts there,
    nor, without `details` (`--agg-details off`), for one without any in what was asked for.
    """
    learners: dict[tuple[str, str, str], list[Mapping[str, Any]]] = {}
    for row in filter(counts, rows):
        learner = (row["user_id"], row["course_id"], row["batch_id"])
        learners.setdefault(learner, []).append(row)
    expected: dict[ActivityKey, Row] = {}
    for user, course, batch, content in sorted(set(asked)):
        in_batch = learners.get((user, course, batch))
        if not in_batch:
            continue
        values: Row = {"agg": {}, "aggregates": {}}
        if details:
            values["agg_details"] = expected_details(in_batch)
        row = expected.setdefault((course, user, f"cb:{batch}"), values)
        for metric, value in metrics([a for a in in_batch if a["content_id"] == content]).items():
            row["agg"][f"{metric}:{content}"] = stored_int(value)
            row["aggregates"][f"{metric}:{content}"] = float(value)
    return {key: row for key, row in expected.items() if details or row["agg"]}


def metrics(attempts: list[Mapping[str, Any]]) -> dict[str, float]:
    """score, max_score and attempts_count of one assessment; of no attempts there are none."""
    if not attempts:
        return {}
    best = attempts[0]
    for attempt in attempts[1:]:
        if rank(attempt) > rank(best):
            best = attempt
    found = {"score": best["total_score"], "attempts_count": len(attempts)}
    if finite_or_none(best["total_max_score"]) is not None:
        found["max_score"] = best["total_max_score"]  # open in the contract: a null one
    return found


def finite_or_none(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def rank(attempt: Mapping[str, Any]) -> tuple[float, int, str]:
    return attempt["total_score"], attempt["last_attempted_on"] or 0, attempt["attempt_id"]


def stored_int(value: float) -> int:
    """Towards zero, and within 32 bits."""
    return max(-(2**31), min(2**31 - 1, math.trunc(value)))


def expected_details(attempts: list[Mapping[str, Any]]) -> list[str]:
    ordered = sorted(
        attempts,
        key=lambda row: (row["content_id"], row["last_attempted_on"] or 0, row["attempt_id"]),
    )
    return [
        json.dumps(
            {
                "attempt_id": row["attempt_id"],
                "last_attempted_on": printed_time(row["last_attempted_on"]),
                "score": float(row["total_score"]),
                "content_id": row["content_id"],
                "max_score": finite_or_none(row["total_max_score"]),
                "type": "attempt_metrics",
            },
            ensure_ascii=False,
            separators=(",", ":"),
        )
        for row in ordered
    ]


def printed_time(ms: int | None) -> str | None:
    """`Sep 24, 2019, 5:59:17 AM`, UTC; no time of a valid event is past the year 9999."""
    if ms is None:
        return None
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=ms // 1000)
    hour = moment.hour % 12 or 12
    half = "AM" if moment.hour < 12 else "PM"
    return (
        f"{MONTHS[moment.month - 1]} {moment.day}, {moment.year}, "
        f"{hour}:{moment.minute:02}:{moment.second:02} {half}"
    )


def read_detail(detail: str) -> tuple[list[tuple[str, Any]], bool]:
    """A text of `agg_details` as its keys and values in their order, and whether it has spaces.

    So that two ways to write one number (1e16, 1e+16) are equal.
    """
    without_strings = re.sub(r'"(?:[^"\\]|\\.)*"', "", detail)
    return json.loads(detail, object_pairs_hook=list), bool(re.search(r"\s", without_strings))


def compare_aggregates(
    actual: Iterable[Mapping[str, Any]],
    rows: Iterable[Mapping[str, Any]],
    asked: Iterable[Asked],
    *,
    details: bool = True,
) -> list[str]:
    """How the rows that `dump --table aggregates` prints differ from what they must be.

    Keys of the maps that are no metric of this pipeline are not looked at; a null map is empty.
    A column that the table lacks (absent from every row) is not compared.
    """
    expected = expected_aggregates(rows, asked, details=details)
    found = {(row["activity_id"], row["user_id"], row["context_id"]): row for row in actual}
    wrong = [f"{key}: no such row is expected" for key in found if key not in expected]
    for key, values in expected.items():
        if key not in found:
            wrong.append(f"{key}: the row is missing")
            continue
        for column, value in values.items():
            if column not in found[key]:
                continue
            stands = found[key][column] or type(value)()
            if column == "agg_details":
                same = list(map(read_detail, stands)) == list(map(read_detail, value))
            else:
                stands = {k: v for k, v in stands.items() if k.split(":")[0] in METRICS}
                same = stands == value
            if not same:
                wrong.append(f"{key} {column}: is {stands}, must be {value}")
    return wrong
