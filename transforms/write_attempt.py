"""WriteAttempt: attempts to the store, each only where it is newer than what is there."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import apache_beam as beam
from apache_beam.metrics import Metrics

from group_scores.scores import ActivityKey, StoredAttempt
from group_scores.scores.attempt import MAX_TRIES, attempt_write_time_us, try_digits
from group_scores.stores import (
    AttemptsRead,
    AttemptWrite,
    Store,
    StoreConfig,
    StoreFault,
    StoreRefusedError,
)
from group_scores.transforms.batching import (
    BatchingDoFn,
    BatchSize,
    Outcome,
    refuse,
    split,
)
from group_scores.transforms.elements import AssessedEvent, Refusal, ScoredEvent
from group_scores.transforms.metrics import NAMESPACE
from group_scores.transforms.resources import shared_store
from group_scores.transforms.retry import Retry

STAGE = "WriteAttempt"


@dataclass
class AttemptsWritten:
    """What became of a batch of events: `written` and `unchanged` count their attempts."""

    assessed: list[AssessedEvent]
    refused: list[Refusal]
    written: int
    unchanged: int


def write_attempts(
    store: Store, events: Sequence[ScoredEvent], retry: Retry, digits: int | None = None
) -> AttemptsWritten:
    """Write the attempts of a batch that are newer than the rows in the store.

    One read a learner and batch tells what is there; where nothing has to be written, it is
    handed on, and the best score need not be read again. `digits` (0 to 999) are the µs below
    the millisecond of the first try's write times: drawn at random, so that two workers that
    write one attempt at once differ.
    Raises StoreTransientError when the store stays away for longer than `retry` allows, or for
    MAX_TRIES.
    """
    reads = read_attempts(store, [event.key.activity for event in events], retry, for_writing=True)
    if digits is None:
        digits = random.randrange(MAX_TRIES)
    refused: dict[int, str] = {}
    written: set[int] = set()
    # Of several versions of one attempt the newest is written; an older one has its turn only
    # where the store refuses the newer.
    todo = _newer(events, reads)
    while todo:
        newest = _newest(events, todo)
        faults = retry.each(newest, _Writing(store, events, reads, digits), MAX_TRIES)
        for index, fault in zip(newest, faults, strict=True):
            if isinstance(fault, StoreRefusedError):
                refused[index] = str(fault)
            else:
                written.add(index)
        done = {_attempt_key(events[index]) for index in written}
        todo = [i for i in todo if i not in refused and _attempt_key(events[i]) not in done]
    touched = {events[index].key.activity for index in written}
    untouched = {key: read for key, read in reads.items() if key not in touched}
    return AttemptsWritten(
        assess([event for i, event in enumerate(events) if i not in refused], untouched),
        [Refusal(events[index].record, STAGE, reason) for index, reason in refused.items()],
        len(written),
        sum(event.attempt is not None for event in events) - len(written) - len(refused),
    )


def assess(
    events: Sequence[ScoredEvent], reads: dict[ActivityKey, AttemptsRead]
) -> list[AssessedEvent]:
    """Hand on the events, each with the read of its learner's attempts that `reads` has."""
    sharers = Counter(event.key.activity for event in events)
    return [
        AssessedEvent(
            event.key,
            event.record,
            reads.get(event.key.activity),
            sharers[event.key.activity],
        )
        for event in events
    ]


def read_attempts(
    store: Store, keys: Iterable[ActivityKey], retry: Retry, *, for_writing: bool = False
) -> dict[ActivityKey, AttemptsRead]:
    """Read the attempts of each distinct key, waiting for a store that is away."""
    distinct = list(dict.fromkeys(keys))
    reads = retry.each(distinct, lambda some, _: store.read_attempts(some, for_writing=for_writing))
    found: dict[ActivityKey, AttemptsRead] = {}
    for key, read in zip(distinct, reads, strict=True):
        if not isinstance(read, AttemptsRead):
            raise read  # a read that is refused for good is a fault of ours, not of an event
        found[key] = read
    return found


@dataclass
class _Writing:
    """One try of a number of attempts, each with a time that no try before had."""

    store: Store
    events: Sequence[ScoredEvent]
    reads: dict[ActivityKey, AttemptsRead]
    digits: int

    def __call__(self, indices: list[int], tries: int) -> list[StoreFault | None]:
        now_us = self.store.now_us()
        return self.store.write_attempts([self._write(i, tries, now_us) for i in indices])

    def _write(self, index: int, tries: int, now_us: int) -> AttemptWrite:
        event = self.events[index]
        assert event.attempt is not None
        stored = find_attempt(self.reads[event.key.activity], event)
        before = None
        if stored and stored.write_us is not None and stored.last_attempted_on_ms is not None:
            before = (stored.write_us, stored.last_attempted_on_ms)
        return AttemptWrite(
            event.attempt,
            attempt_write_time_us(event.assessment_ts_ms, before, try_digits(self.digits, tries)),
            now_us,
            create=stored is None or not stored.has_created_on,
        )


def find_attempt(read: AttemptsRead, event: ScoredEvent) -> StoredAttempt | None:
    """Return the event's own attempt as it is stored, or None."""
    for attempt in read.attempts:
        if attempt.attempt_id == event.attempt_id and attempt.content_id == event.key.content_id:
            return attempt
    return None


def is_stored(read: AttemptsRead, event: ScoredEvent) -> bool:
    """Tell whether the event's attempt, or a later version of it, is in the table."""
    stored = find_attempt(read, event)
    return (
        stored is not None
        and stored.last_attempted_on_ms is not None
        and stored.last_attempted_on_ms >= event.assessment_ts_ms
    )


def _newer(events: Sequence[ScoredEvent], reads: dict[ActivityKey, AttemptsRead]) -> list[int]:
    return [
        index
        for index, event in enumerate(events)
        if event.attempt is not None and not is_stored(reads[event.key.activity], event)
    ]


def _newest(events: Sequence[ScoredEvent], indices: Iterable[int]) -> list[int]:
    """Return one index an attempt: its latest version, of equally late ones the first."""
    newest: dict[tuple[object, str], int] = {}
    for index in indices:
        key = _attempt_key(events[index])
        other = newest.get(key)
        if other is None or events[index].assessment_ts_ms > events[other].assessment_ts_ms:
            newest[key] = index
    return list(newest.values())


def _attempt_key(event: ScoredEvent) -> tuple[object, str]:
    return event.key, event.attempt_id


class _WriteFn(BatchingDoFn[ScoredEvent]):
    def __init__(self, store: StoreConfig, retry: Retry, size: BatchSize) -> None:
        super().__init__(STAGE, size)
        self._store = store
        self._retry = retry
        self._written = Metrics.counter(NAMESPACE, "attempts_written")
        self._unchanged = Metrics.counter(NAMESPACE, "attempts_unchanged")

    def size_of(self, element: ScoredEvent) -> int:
        return len(element.record.value)

    def flush(self, batch: list[ScoredEvent]) -> Iterator[AssessedEvent | beam.pvalue.TaggedOutput]:
        store = self._retry.call(lambda: shared_store(self._store))
        result = write_attempts(store, batch, self._retry)
        self._written.inc(result.written)
        self._unchanged.inc(result.unchanged)
        yield from result.assessed
        yield from map(refuse, result.refused)


@dataclass
class WriteAttempt(beam.PTransform):
    """Write each attempt that is newer than its row; the event goes on in any case."""

    store: StoreConfig
    retry: Retry = Retry()
    size: BatchSize = BatchSize()

    def expand(self, events: beam.PCollection) -> Outcome:
        """ScoredEvent -> AssessedEvent, Refusal."""
        do_fn = _WriteFn(self.store, self.retry, self.size)
        return split(events, "Write", do_fn, AssessedEvent)
