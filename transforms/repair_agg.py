"""Compare rows with what their attempts give, and write what differs.

Every call here can be repeated: what is written has the time of the attempts it comes from.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from group_scores.scores import ActivityAgg, ActivityKey, AggregateRow, activity_agg
from group_scores.scores.attempt import MAX_TRIES, try_digits
from group_scores.scores.drift import Difference, RowDrift, row_drift
from group_scores.stores import Pruning, Store, StoreFault, StoreRefusedError
from group_scores.transforms.elements import ActivityUpdate
from group_scores.transforms.fetch_best_score import best_scores_of
from group_scores.transforms.retry import Retry
from group_scores.transforms.write_attempt import read_attempts

_EARLIER_US = 1_000


def read_rows(
    store: Store, keys: Sequence[ActivityKey], retry: Retry
) -> dict[ActivityKey, AggregateRow]:
    """Read the row of each key, waiting for a store that is away."""
    distinct = list(dict.fromkeys(keys))
    rows = retry.each(distinct, lambda some, _: store.read_aggregates(some))
    found: dict[ActivityKey, AggregateRow] = {}
    for key, row in zip(distinct, rows, strict=True):
        if not isinstance(row, AggregateRow):
            raise row  # a read that is refused for good is a fault of ours
        found[key] = row
    return found


def newest(updates: Iterable[ActivityUpdate]) -> dict[ActivityKey, ActivityAgg]:
    """Return one update a row, of several the one whose attempts were read last."""
    in_order = sorted(updates, key=lambda update: update.agg.t_us)
    return {update.agg.key: update.agg for update in in_order}


def find_drift(
    store: Store, expected: Sequence[ActivityAgg], metrics: Sequence[str], retry: Retry
) -> list[RowDrift]:
    """Return, for each update, how the row as it stands differs from it."""
    if not store.wants_details:  # the list is nobody's business then
        expected = [ActivityAgg(agg.key, agg.t_us, agg.metrics, None) for agg in expected]
    held = retry.each(expected, lambda some, _: store.hold(some, metrics))
    others = [agg.key for agg, held in zip(expected, held, strict=True) if held is not True]
    rows = read_rows(store, others, retry)
    return [
        row_drift(agg, rows[agg.key], maps=store.value_maps, metrics=metrics)
        if agg.key in rows
        else RowDrift(agg.key, agg.t_us, [], None, [], [], False)
        for agg in expected
    ]


@dataclass
class Mended:
    """What became of one row: `refused` by the store for good, or `left`, what did not take."""

    key: ActivityKey
    refused: StoreRefusedError | None
    left: list[Difference]


def mend(
    store: Store,
    drifts: Sequence[RowDrift],
    expected: Sequence[ActivityAgg],
    metrics: tuple[str, ...],
    retry: Retry,
    *,
    prune: bool,
    digits: int | None = None,
) -> list[Mended]:
    """Write what differs, read it again, and compute from the live table what does not show.

    It may not show where somebody has since overwritten or deleted a whole map: what was written
    before that is hidden, as what is written with an earlier time is. `expected` has the update
    that each of the `drifts` was found with; `digits` are those of `write_drift`.
    """
    refused = write_drift(store, drifts, retry, prune=prune, digits=digits)
    left = {
        drift.key: differences
        for drift in find_drift(store, expected, metrics, retry)
        if drift.key not in refused and (differences := to_mend(drift, prune=prune))
    }
    # A learner without attempts in the live table tells nothing: it may be another cluster's.
    live = [agg for agg in recompute_live(store, list(left), metrics, retry) if agg.metrics]
    if live:
        again = find_drift(store, live, metrics, retry)
        refused |= write_drift(store, again, retry, prune=prune)
        for drift in find_drift(store, live, metrics, retry):
            left[drift.key] = to_mend(drift, prune=prune)
    return [Mended(one.key, refused.get(one.key), left.get(one.key, [])) for one in drifts]


def to_mend(drift: RowDrift, *, prune: bool) -> list[Difference]:
    """Return the differences that a repair takes away: orphans only where they are pruned."""
    return [one for one in drift.differences if is_mended(one, prune=prune)]


def is_mended(difference: Difference, *, prune: bool) -> bool:
    """Tell whether a repair takes the difference away."""
    return prune or difference.kind != "orphaned"


def write_drift(
    store: Store,
    drifts: Sequence[RowDrift],
    retry: Retry,
    *,
    prune: bool,
    digits: int | None = None,
) -> dict[ActivityKey, StoreRefusedError]:
    """Write each row's update, and take out what may be pruned; return what was refused.

    A write that failed may have taken effect, and so may one of a run that was killed. A list
    that is written twice at one time would hold its elements twice: so the times differ in the
    `digits` (0 to 999 µs, drawn at random) and with each of MAX_TRIES. They are of the ms before
    the rows' and never come after: what a stream has read later wins, whenever it is written.
    Raises StoreTransientError when the store stays away for longer than that, or `retry` allows.
    """
    first = random.randrange(MAX_TRIES) if digits is None else digits

    def write(some: list[ActivityAgg], tries: int) -> list[StoreFault | None]:
        offset_us = try_digits(first, tries) - _EARLIER_US
        return store.write_aggregates(
            [ActivityAgg(a.key, a.t_us + offset_us, a.metrics, a.details) for a in some]
        )

    writing = [agg for drift in drifts if (agg := _update(drift, prune=prune)) is not None]
    faults = retry.each(writing, write, MAX_TRIES)
    refused = _refused([agg.key for agg in writing], faults)
    pruning = [
        Pruning(drift.key, drift.t_us, drift.prunable, drift.undatable)
        for drift in drifts
        if prune and drift.prunable
    ]
    faults = retry.each(pruning, lambda some, _: store.prune_aggregates(some))
    return refused | _refused([one.key for one in pruning], faults)


def _update(drift: RowDrift, *, prune: bool) -> ActivityAgg | None:
    if not (prune and drift.clearable):
        return drift.update
    metrics = drift.update.metrics if drift.update else {}
    return ActivityAgg(drift.key, drift.t_us, metrics, [])


def _refused(
    keys: Sequence[ActivityKey], faults: Sequence[StoreFault | None]
) -> dict[ActivityKey, StoreRefusedError]:
    return {
        key: fault
        for key, fault in zip(keys, faults, strict=True)
        if isinstance(fault, StoreRefusedError)
    }


def recompute_live(
    store: Store, keys: Sequence[ActivityKey], metrics: tuple[str, ...], retry: Retry
) -> list[ActivityAgg]:
    """Compute the rows from the store's own attempts, as they are now."""
    reads = read_attempts(store, keys, retry)
    updates = []
    for key in keys:
        attempts = reads[key].attempts
        contents = list(dict.fromkeys(attempt.content_id for attempt in attempts))
        best = best_scores_of(key, reads[key], contents, details=store.wants_details)
        updates.append(activity_agg(key, best.t_us, best.best, metrics, best.details))
    return updates
