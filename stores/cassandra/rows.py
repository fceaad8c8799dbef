"""Rows of the tables as the values that the rules compute with."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from group_scores.scores import AggregateRow
from group_scores.scores.keys import METRIC_PREFIXES
from group_scores.stores.cassandra import codec
from group_scores.stores.protocol import ActivityRow

_MAPS = ("agg", "aggregates", "agg_last_updated")
_DECODERS: dict[str, Callable[[bytes], Any]] = {
    "agg": codec.map_decoder("i"),
    "aggregates": codec.map_decoder("d"),
    "agg_last_updated": codec.map_decoder("q"),
    "agg_details": codec.texts,
}


def activity_row(columns: Sequence[str], row: Sequence[Any]) -> ActivityRow:
    """Return a row from its `context_id` and then its columns, whose collections are bytes still.

    It has no write times: who reads an activity writes nothing.
    """
    found = {
        name: _DECODERS[name](data) if data is not None else None
        for name, data in zip(columns, row[1:], strict=True)
    }
    return ActivityRow(
        row[0],
        AggregateRow(
            found["agg"] or {},
            found.get("aggregates") or {},
            found["agg_last_updated"] or {},
            found.get("agg_details") or [],
        ),
    )


def aggregate_row(columns: Sequence[str], values: Sequence[Any]) -> AggregateRow:
    """Return a row from its columns' values, and behind them their write times where they came.

    The time of a map or a list is a list: one for each of its entries, in their order.
    """
    found = dict(zip(columns, values, strict=False))
    times = dict(zip(columns, values[len(columns) :], strict=False))
    updated = dict(found["agg_last_updated"] or {})
    details = list(found.get("agg_details") or ())
    if times:
        write_us = _times((found.get(name), times.get(name)) for name in _MAPS)
        details_us = max(times.get("agg_details") or (), default=None)
    else:
        write_us = {name: value_ms * 1000 for name, value_ms in updated.items()}
        ours = [time_us for name, time_us in write_us.items() if name.startswith(METRIC_PREFIXES)]
        details_us = max(ours, default=None) if details else None
    return AggregateRow(
        dict(found["agg"] or {}),
        dict(found.get("aggregates") or {}),
        updated,
        details,
        write_us,
        details_us,
    )


def _times(maps: Iterable[tuple[Any, Sequence[int] | None]]) -> dict[str, int]:
    """Return, for each key of the maps, the latest of its times."""
    latest: dict[str, int] = {}
    for entries, times in maps:
        for name, time_us in zip(entries or (), times or (), strict=True):
            latest[name] = max(time_us, latest.get(name, time_us))
    return latest
