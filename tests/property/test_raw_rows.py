"""The bytes of a row tell what its decoded values tell."""

from __future__ import annotations

from typing import Any

from cassandra.cqltypes import DateType, DoubleType, Int32Type, ListType, MapType, UTF8Type
from hypothesis import given
from hypothesis import strategies as st

from group_scores.scores import METRICS, ActivityAgg, ActivityKey, AggregateRow
from group_scores.scores.drift import row_drift
from group_scores.stores.cassandra.raw_rows import holds

T = 1_700_000_000_000_000
KEY = ActivityKey("course", "user", "batch")
_VALUES = {"agg": Int32Type, "aggregates": DoubleType, "agg_last_updated": DateType}

contents = st.sampled_from(["c1", "c2", "ü", "c:1", "\U0001f600"])
ours = st.builds("{}:{}".format, st.sampled_from(METRICS), contents)
foreign = st.sampled_from(["completedCount", "score", "scores:c1", "a", "zz", ""])
values = st.sampled_from([0.0, 1.0, 1.5, -2.25, 3e9])
times_ms = st.sampled_from([1, T // 1000])


def encoded(row: AggregateRow) -> dict[str, bytes | None]:
    """Return what Cassandra sends: sorted by the keys' bytes, and null where there is nothing."""
    maps: dict[str, Any] = {
        "agg": row.agg,
        "aggregates": row.aggregates,
        "agg_last_updated": row.agg_last_updated_ms,
    }
    columns: dict[str, bytes | None] = {}
    for name, entries in maps.items():
        cql_type = MapType.apply_parameters([UTF8Type, _VALUES[name]])
        in_order = dict(sorted(entries.items(), key=lambda entry: entry[0].encode()))
        columns[name] = bytes(cql_type.serialize(in_order, 4)) if entries else None
    texts = ListType.apply_parameters([UTF8Type])
    columns["agg_details"] = bytes(texts.serialize(row.details, 4)) if row.details else None
    return columns


@st.composite
def updates_and_rows(draw: st.DrawFn) -> tuple[ActivityAgg, AggregateRow]:
    """A row that holds an update, but for some entries, and others' keys beside."""
    metrics = draw(st.dictionaries(ours, values, max_size=4))
    details = draw(st.none() | st.lists(st.sampled_from(["a", "ü"]), max_size=2))
    update = ActivityAgg(KEY, T, metrics, details)
    maps: list[dict[str, Any]] = []
    for held in (update.agg, metrics, dict.fromkeys(metrics, T // 1000)):
        others = draw(st.dictionaries(foreign | ours, st.sampled_from([1, 2]), max_size=2))
        kept = draw(st.just(set(held)) | st.sets(st.sampled_from(sorted(held) or [""])))
        maps.append(draw(st.just({}) | st.just(others)) | {n: held[n] for n in kept & set(held)})
    updated = {name: draw(times_ms) for name in maps[2]}
    shown = draw(st.just(details or []) | st.lists(st.sampled_from(["a", "ü"]), max_size=2))
    return update, AggregateRow(maps[0], {n: float(v) for n, v in maps[1].items()}, updated, shown)


@given(updates_and_rows(), st.sampled_from([("agg", "aggregates"), ("agg",), ("aggregates",)]))
def test_a_row_holds_what_does_not_differ(
    drawn: tuple[ActivityAgg, AggregateRow], maps: tuple[str, ...]
) -> None:
    update, row = drawn
    if "agg" not in maps:
        row.agg.clear()
    if "aggregates" not in maps:
        row.aggregates.clear()
    drift = row_drift(update, row, maps=maps, metrics=METRICS)
    found = holds(update, encoded(row), maps=maps, metrics=METRICS)
    assert found == (not drift.differences)


@given(updates_and_rows(), st.sampled_from(METRICS))
def test_metrics_that_are_not_asked_for_are_left(
    drawn: tuple[ActivityAgg, AggregateRow], metric: str
) -> None:
    update, row = drawn
    names = [name for name in update.metrics if name.startswith(f"{metric}:")]
    asked = ActivityAgg(KEY, T, {name: update.metrics[name] for name in names}, update.details)
    drift = row_drift(asked, row, maps=_MAPS, metrics=(metric,))
    assert holds(asked, encoded(row), maps=_MAPS, metrics=(metric,)) == (not drift.differences)


_MAPS = ("agg", "aggregates")
