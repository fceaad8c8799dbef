"""What a recomputation would change in a row: the rule of every batch run.

A batch run knows the attempts as they were at some time t. A key that was written later is newer
than what the run knows: it is neither drift nor to be written.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Literal

import msgspec

from group_scores.scores.aggregate import ActivityAgg, AggregateRow
from group_scores.scores.keys import ActivityKey

DETAILS = "agg_details"
UPDATED = "agg_last_updated"

Kind = Literal["missing", "stale", "orphaned"]
_Map = tuple[str, Mapping[str, float]]


class Difference(msgspec.Struct, frozen=True):
    """One entry of a row that is not what the attempts give.

    `column` is the map, or `agg_details`, whose `name` is empty. `missing` entries are not there,
    `stale` ones have another value, `orphaned` ones have no attempt. `expected` and `found` are
    None where there is no value, or none to tell; for the list they are the number of elements.
    """

    kind: Kind
    column: str
    name: str
    expected: float | None
    found: float | None


class RowDrift(msgspec.Struct, frozen=True):
    """The differences of one row, and what mends them.

    `update` is to be written for what is missing or stale. `prunable` are the keys that have no
    attempt any more, `undatable` those of them that no other map has, so that their time goes too.
    `clearable` says that the whole list has none.
    """

    key: ActivityKey
    t_us: int
    differences: list[Difference]
    update: ActivityAgg | None
    prunable: list[str]
    undatable: list[str]
    clearable: bool


def row_drift(
    expected: ActivityAgg,
    row: AggregateRow,
    *,
    maps: Collection[str],
    metrics: Collection[str],
) -> RowDrift:
    """Compare what the attempts give with the row as it stands.

    `expected` has every assessment of the learner in the batch. `maps` are the maps of values that
    are written: no other is looked at. Of `row` only keys of the `metrics` are, the others are not
    ours.
    """
    looked_at = [(column, values) for column, values in _values(row) if column in maps]
    differences: list[Difference] = []
    changed: dict[str, float] = {}
    integers = expected.agg
    for name, value in expected.metrics.items():
        if row.write_us.get(name, 0) > expected.t_us:
            continue
        found = list(_of_key(name, value, integers[name], row, looked_at))
        differences += found
        if found:
            changed[name] = value
    prunable = sorted(_orphans(expected, row, looked_at, metrics))
    differences += [
        Difference("orphaned", column, name, None, values[name])
        for name in prunable
        for column, values in looked_at
        if name in values
    ]
    details = _details(expected, row)
    if details is not None:
        differences.append(details)
    clearable = details is not None and details.kind == "orphaned"
    texts = expected.details if details is not None and not clearable else None
    update = None
    if changed or texts is not None:
        update = ActivityAgg(expected.key, expected.t_us, changed, texts)
    others = {name for column, values in _values(row) if column not in maps for name in values}
    undatable = [name for name in prunable if name not in others]
    return RowDrift(
        expected.key, expected.t_us, differences, update, prunable, undatable, clearable
    )


def _of_key(
    name: str, value: float, integer: int, row: AggregateRow, maps: Iterable[_Map]
) -> Iterator[Difference]:
    for column, values in maps:
        wanted: float = integer if column == "agg" else value
        found = values.get(name)
        if found is None:
            yield Difference("missing", column, name, wanted, None)
        elif found != wanted:
            yield Difference("stale", column, name, wanted, found)
    if name not in row.agg_last_updated_ms:
        yield Difference("missing", UPDATED, name, None, None)


def _orphans(
    expected: ActivityAgg, row: AggregateRow, maps: Iterable[_Map], metrics: Collection[str]
) -> Iterator[str]:
    """Keys of ours for which no attempt counts, and which are not newer than the attempts."""
    for name in {name for _, values in maps for name in values}:
        metric, colon, _ = name.partition(":")
        if not colon or metric not in metrics or name in expected.metrics:
            continue
        if row.write_us.get(name, 0) <= expected.t_us:
            yield name


def _details(expected: ActivityAgg, row: AggregateRow) -> Difference | None:
    if expected.details is None or expected.details == row.details:
        return None
    if row.details_us is not None and row.details_us > expected.t_us:
        return None
    kind: Kind = "stale" if row.details else "missing"
    if not expected.details:
        kind = "orphaned"
    return Difference(kind, DETAILS, "", len(expected.details), len(row.details))


def _values(row: AggregateRow) -> tuple[_Map, ...]:
    return (("agg", row.agg), ("aggregates", row.aggregates))
