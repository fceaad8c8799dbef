"""Rows of the embedded store as the values that the rules and a scan take."""

from __future__ import annotations

import json
from collections.abc import Sequence
from decimal import Decimal

import msgspec

from group_scores.scores import AggregateRow
from group_scores.scores.keys import ACTIVITY_TYPE


def question_record(question: dict[str, object]) -> dict[str, object]:
    """Name the fields as the column type in Cassandra does, in its order."""
    record = {
        "assess_ts" if name == "assess_ts_ms" else name: value for name, value in question.items()
    }
    duration = record["duration"]
    if isinstance(duration, float) and duration.is_integer():
        record["duration"] = int(Decimal(repr(duration)))  # the decimal that Cassandra is given
    return record


def aggregate_row(cells: Sequence[tuple[str, str, object, int]]) -> AggregateRow:
    """Return a row from its cells: map, key, value and write time; one without a value is none."""
    maps: dict[str, dict[str, object]] = {"agg": {}, "aggregates": {}, "agg_last_updated": {}}
    details: list[str] = []
    details_us: int | None = None
    times: dict[str, int] = {}
    for name, key, value, write_us in cells:
        if value is None:
            continue
        if name == "agg_details":
            details, details_us = json.loads(str(value)), write_us
        else:
            maps[name][key] = value
            times[key] = max(write_us, times.get(key, write_us))
    return msgspec.convert(
        {
            "agg": maps["agg"],
            "aggregates": maps["aggregates"],
            "agg_last_updated_ms": maps["agg_last_updated"],
            "details": details,
            "write_us": times,
            "details_us": details_us,
        },
        AggregateRow,
    )


def aggregate_record(
    key: tuple[str, ...], cells: Sequence[tuple[str, str, object, int]]
) -> dict[str, object]:
    """Return a row as a scan gives it, by its key: activity, learner, context."""
    row = aggregate_row(cells)
    activity_id, user_id, context_id = key
    return {
        "activity_type": ACTIVITY_TYPE,
        "activity_id": activity_id,
        "user_id": user_id,
        "context_id": context_id,
        "agg": row.agg,
        "agg_last_updated": row.agg_last_updated_ms,
        "aggregates": row.aggregates,
        "agg_details": row.details,
    }
