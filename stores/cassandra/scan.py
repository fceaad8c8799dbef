"""Rows of a scan: which ones, and as the plain values that a dump shows."""

from __future__ import annotations

import math
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

from cassandra.cluster import Session
from cassandra.util import OrderedMapSerializedKey

from group_scores.scores.keys import ACTIVITY_TYPE
from group_scores.stores.cassandra.schema import Schema
from group_scores.stores.protocol import Selection, Table

PAGE_ROWS = 1000
_PAGE_TIMEOUT_S = 60.0  # filtered by the nodes, a page can take a read of the whole table
_ATTEMPT_COLUMNS = (
    "user_id",
    "course_id",
    "batch_id",
    "content_id",
    "attempt_id",
    "created_on",
    "last_attempted_on",
    "updated_on",
    "total_score",
    "total_max_score",
    "grand_total",
    "question",
)
_AGGREGATE_KEY = ("activity_type", "activity_id", "user_id", "context_id")
_MAPS = ("agg", "aggregates", "agg_last_updated")
_LISTS = ("question", "agg_details")


def scan(
    session: Session, schema: Schema, table: Table, selection: Selection
) -> Iterator[dict[str, object]]:
    """Yield the selected rows, in the order of the nodes. Raises the driver's errors."""
    columns: tuple[str, ...]
    if table == "attempts":
        name, columns, where = schema.attempts, _ATTEMPT_COLUMNS, _attempt_filter(selection)
    else:
        name, columns = schema.aggregates, _AGGREGATE_KEY + schema.aggregate_values
        where = aggregate_filter(selection)
    query = f"SELECT {', '.join(columns)} FROM {name}"
    if where:
        query += " WHERE " + " AND ".join(f"{c} = ?" for c in where) + " ALLOW FILTERING"
    statement = session.prepare(query).bind(list(where.values()))
    statement.fetch_size = PAGE_ROWS
    for row in session.execute(statement, timeout=_PAGE_TIMEOUT_S):
        yield _record(columns, row)


def _attempt_filter(selection: Selection) -> dict[str, str]:
    return _given(
        course_id=selection.course_id, batch_id=selection.batch_id, user_id=selection.user_id
    )


def aggregate_filter(selection: Selection) -> dict[str, str]:
    """Return what the columns of the selected aggregate rows equal."""
    return _given(
        activity_type=ACTIVITY_TYPE,  # the table holds other activities too
        activity_id=selection.course_id,
        user_id=selection.user_id,
        context_id=None if selection.batch_id is None else "cb:" + selection.batch_id,
    )


def _given(**columns: str | None) -> dict[str, str]:
    return {name: value for name, value in columns.items() if value is not None}


def _record(columns: tuple[str, ...], row: tuple[Any, ...]) -> dict[str, object]:
    record = {name: _plain(value) for name, value in zip(columns, row, strict=True)}
    # Cassandra keeps no empty collection: it is null there.
    empty: dict[str, object] = {name: {} for name in _MAPS} | {name: [] for name in _LISTS}
    return {name: empty.get(name) if item is None else item for name, item in record.items()}


def _plain(value: Any) -> object:
    """Turn a column's value into what JSON has: decimals are numbers, no number is a null."""
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, OrderedMapSerializedKey | dict):
        return {key: _plain(item) for key, item in value.items()}
    if hasattr(value, "_fields"):
        return {name: _plain(item) for name, item in zip(value._fields, value, strict=True)}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
