"""AwaitAttempt: for a table that another job writes, go on once the event's attempt is there."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import apache_beam as beam

from group_scores.stores import Store, StoreConfig
from group_scores.transforms.batching import BatchingDoFn, BatchSize, Outcome, refuse, split
from group_scores.transforms.elements import AssessedEvent, Refusal, ScoredEvent
from group_scores.transforms.resources import shared_store
from group_scores.transforms.retry import Retry
from group_scores.transforms.write_attempt import assess, is_stored, read_attempts

STAGE = "AwaitAttempt"
_FIRST_PAUSE_S = 0.05
_LONGEST_PAUSE_S = 2.0


def find_assessed(
    store: Store, events: Sequence[ScoredEvent], retry: Retry
) -> tuple[list[AssessedEvent], list[ScoredEvent]]:
    """Tell the events whose attempt is in the table from those that have to wait for it.

    An event without answers has no attempt to wait for.
    """
    reads = read_attempts(store, [event.key.activity for event in events], retry)
    found: list[ScoredEvent] = []
    waiting: list[ScoredEvent] = []
    for event in events:
        read = reads[event.key.activity]
        if event.attempt is None or is_stored(read, event):
            found.append(event)
        else:
            waiting.append(event)
    return assess(found, reads), waiting


class _AwaitFn(BatchingDoFn[ScoredEvent]):
    """Events that wait do not hold up the others; the end of the bundle waits for the last."""

    def __init__(self, store: StoreConfig, await_s: float, retry: Retry, size: BatchSize) -> None:
        super().__init__(STAGE, size)
        self._store = store
        self._await_s = await_s
        self._retry = retry
        self._waiting: list[tuple[float, ScoredEvent]] = []

    def start_bundle(self) -> None:
        super().start_bundle()
        self._waiting = []

    def size_of(self, element: ScoredEvent) -> int:
        return len(element.record.value)

    def flush(self, batch: list[ScoredEvent]) -> Iterator[AssessedEvent | beam.pvalue.TaggedOutput]:
        until = time.monotonic() + self._await_s
        self._waiting += [(until, event) for event in batch]
        yield from self._check()

    def finish(self) -> Iterator[AssessedEvent | beam.pvalue.TaggedOutput]:
        pause_s = _FIRST_PAUSE_S
        while self._waiting:
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
            yield from self._check()

    def _check(self) -> Iterator[AssessedEvent | beam.pvalue.TaggedOutput]:
        store = self._retry.call(lambda: shared_store(self._store))
        waiting, self._waiting = self._waiting, []
        # The time is taken before the read: what the read finds has come in time.
        now = time.monotonic()
        assessed, missing = find_assessed(store, [event for _, event in waiting], self._retry)
        yield from assessed
        still = {id(event) for event in missing}
        for until, event in waiting:
            if id(event) not in still:
                continue
            if now < until:
                self._waiting.append((until, event))
            else:
                yield refuse(Refusal(event.record, STAGE, _too_late(event, self._await_s)))


def _too_late(event: ScoredEvent, await_s: float) -> str:
    return (
        f"attemptId: the attempt {event.attempt_id!r} of {event.assessment_ts_ms} or later is not "
        f"in assessment_aggregator after {await_s:g} s; replay the event once it is"
    )


@dataclass
class AwaitAttempt(beam.PTransform):
    """Let an event pass when its attempt is in the table; refuse it after `await_s` seconds."""

    store: StoreConfig
    await_s: float = 30.0
    retry: Retry = Retry()
    size: BatchSize = BatchSize()

    def expand(self, events: beam.PCollection) -> Outcome:
        """ScoredEvent -> AssessedEvent, Refusal."""
        do_fn = _AwaitFn(self.store, self.await_s, self.retry, self.size)
        return split(events, "Await", do_fn, AssessedEvent)
