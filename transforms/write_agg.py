"""WriteAgg: partial updates to the aggregate rows; the newest read wins."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import apache_beam as beam
from apache_beam.metrics import Metrics

from group_scores.scores import METRICS, ActivityKey
from group_scores.scores.refresh import refresh_event
from group_scores.stores import Store, StoreConfig, StoreFault, StoreRefusedError
from group_scores.transforms.batching import (
    BatchingDoFn,
    BatchSize,
    Outcome,
    refuse,
    split,
)
from group_scores.transforms.elements import ActivityUpdate, ProcessedActivity, Refusal
from group_scores.transforms.fetch_best_score import best_scores_of
from group_scores.transforms.merge_agg import merge_agg
from group_scores.transforms.metrics import NAMESPACE
from group_scores.transforms.repair_agg import find_drift, mend, newest
from group_scores.transforms.resources import shared_store
from group_scores.transforms.retry import Retry
from group_scores.transforms.write_attempt import read_attempts

STAGE = "WriteAgg"
log = logging.getLogger(__name__)


@dataclass
class AggregatesWritten:
    """What became of a batch of updates; `written` and `unchanged` count rows.

    Of those that are written, `not_taken` do not show all of it afterwards.
    """

    processed: list[ProcessedActivity]
    refused: list[Refusal]
    written: int
    unchanged: int = 0
    not_taken: int = 0


def write_aggregates(
    store: Store, updates: Sequence[ActivityUpdate], metrics: tuple[str, ...], retry: Retry
) -> AggregatesWritten:
    """Write every update, also one that looks unchanged: a stale write may be under way.

    A write that failed may have taken effect, or may take effect later, with the attempts as they
    were then. So it is not written again: the attempts are read again and what they give now is
    written, with a greater time.
    Raises StoreTransientError when the store stays away for longer than `retry` allows.
    """
    # Nothing to say of a learner without any attempt that counts.
    writing = [update for update in updates if update.agg.metrics or update.agg.details]

    def write(some: list[ActivityUpdate], tries: int) -> list[StoreFault | None]:
        if tries:
            some = recompute(store, some, metrics)
        return store.write_aggregates([update.agg for update in some])

    faults = retry.each(writing, write)
    refused = {
        id(update): str(fault)
        for update, fault in zip(writing, faults, strict=True)
        if isinstance(fault, StoreRefusedError)
    }
    return AggregatesWritten(
        [
            ProcessedActivity(update.agg.key, update.certificate_attempt_id, len(update.records))
            for update in updates
            if id(update) not in refused
        ],
        [
            Refusal(record, STAGE, refused[id(update)])
            for update in updates
            if id(update) in refused
            for record in update.records
        ],
        len(writing) - len(refused),
    )


def write_changed(
    store: Store,
    updates: Sequence[ActivityUpdate],
    metrics: tuple[str, ...],
    retry: Retry,
    digits: int | None = None,
) -> AggregatesWritten:
    """Write only what differs from the rows as they stand, and look whether it took.

    For updates that come from a scan of all attempts. What was written after it stays, and so do
    keys without an attempt (`verify --prune` takes those out). `digits` are those of `write_drift`.
    Raises StoreTransientError when the store stays away for longer than `retry` allows.
    """
    expected = newest(updates)
    drifts = find_drift(store, list(expected.values()), metrics, retry)
    changed = [drift for drift in drifts if drift.update is not None]
    found_with = [expected[drift.key] for drift in changed]
    mended = {
        one.key: one
        for one in mend(store, changed, found_with, metrics, retry, prune=False, digits=digits)
    }
    not_taken = [one for one in mended.values() if one.left]
    for one in not_taken:
        # Not whose row it is: logs go further than learners' names may.
        place = f"a row of course {one.key.course_id}, batch {one.key.batch_id}"
        log.warning("%s: %d values did not take; run again", place, len(one.left))
    refused = {key: one.refused for key, one in mended.items() if one.refused is not None}
    return AggregatesWritten(
        [
            ProcessedActivity(key, None, 0)
            for key in expected
            if key in mended and key not in refused
        ],
        [
            Refusal(refresh_event(key, content, expected[key].t_us // 1000), STAGE, str(error))
            for key, error in refused.items()
            for content in _contents(updates, key)
        ],
        len(mended) - len(refused),
        len(expected) - len(mended),
        len(not_taken),
    )


def _contents(updates: Sequence[ActivityUpdate], key: ActivityKey) -> list[str]:
    return [content for update in updates if update.agg.key == key for content in update.contents]


def recompute(
    store: Store, updates: Sequence[ActivityUpdate], metrics: tuple[str, ...]
) -> list[ActivityUpdate]:
    """Read the attempts behind the updates again; one try, the caller repeats."""
    reads = read_attempts(store, [update.agg.key for update in updates], Retry(0))
    return [
        merge_agg(
            best_scores_of(
                update.agg.key,
                reads[update.agg.key],
                update.contents,
                details=store.wants_details,
            ),
            metrics,
        )
        for update in updates
    ]


class _WriteFn(BatchingDoFn[ActivityUpdate]):
    def __init__(
        self,
        store: StoreConfig,
        metrics: tuple[str, ...],
        retry: Retry,
        size: BatchSize,
        changed_only: bool,
    ) -> None:
        super().__init__(STAGE, size)
        self._changed_only = changed_only
        self._store = store
        self._metrics = metrics
        self._retry = retry
        self._written = Metrics.counter(NAMESPACE, "aggregates_written")
        self._unchanged = Metrics.counter(NAMESPACE, "aggregates_unchanged")
        self._not_taken = Metrics.counter(NAMESPACE, "aggregates_not_taken")

    def size_of(self, element: ActivityUpdate) -> int:
        events = sum(len(record.value) for record in element.records)
        return events + sum(map(len, element.agg.details or ()))

    def flush(
        self, batch: list[ActivityUpdate]
    ) -> Iterator[ProcessedActivity | beam.pvalue.TaggedOutput]:
        store = self._retry.call(lambda: shared_store(self._store))
        write = write_changed if self._changed_only else write_aggregates
        result = write(store, batch, self._metrics, self._retry)
        self._written.inc(result.written)
        self._unchanged.inc(result.unchanged)
        self._not_taken.inc(result.not_taken)
        yield from result.processed
        yield from map(refuse, result.refused)


@dataclass
class WriteAgg(beam.PTransform):
    """Write each row's update at the time its attempts were read.

    `changed_only` is for updates that come from a scan: what the row holds already is not written.
    From events every key is written, also one that looks unchanged, see `write_aggregates`.
    """

    store: StoreConfig
    metrics: tuple[str, ...] = METRICS
    retry: Retry = Retry()
    size: BatchSize = BatchSize()
    changed_only: bool = False

    def expand(self, updates: beam.PCollection) -> Outcome:
        """ActivityUpdate -> ProcessedActivity, Refusal."""
        do_fn = _WriteFn(self.store, self.metrics, self.retry, self.size, self.changed_only)
        return split(updates, "Write", do_fn, ProcessedActivity)
