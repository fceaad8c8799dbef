"""FetchBestScore: the best score of each assessment, read after its attempt was written."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import apache_beam as beam

from group_scores.scores import ActivityKey, agg_details, best_scores
from group_scores.scores.certificate import certificate_attempt_id
from group_scores.stores import AttemptsRead, Store, StoreConfig
from group_scores.transforms.batching import BatchingDoFn, BatchSize
from group_scores.transforms.elements import AssessedEvent, BestScores
from group_scores.transforms.resources import shared_store
from group_scores.transforms.retry import Retry
from group_scores.transforms.write_attempt import read_attempts


def fetch_best_scores(
    store: Store, events: Sequence[AssessedEvent], retry: Retry
) -> list[BestScores]:
    """Return one element a learner and batch, with the best scores of the events' assessments.

    A read that events bring along serves where every event of the learner has one, and where all
    that share it are here: two aggregates with the time of one read would double the row's list.
    """
    groups: dict[ActivityKey, list[AssessedEvent]] = {}
    for event in events:
        groups.setdefault(event.key.activity, []).append(event)
    reads: dict[ActivityKey, AttemptsRead] = {}
    for key, group in groups.items():
        if (brought := _brought(group)) is not None:
            reads[key] = brought
    reads |= read_attempts(store, [key for key in groups if key not in reads], retry)
    return [
        best_scores_of(
            key,
            reads[key],
            list(dict.fromkeys(event.key.content_id for event in group)),
            details=store.wants_details,
            events=group,
        )
        for key, group in groups.items()
    ]


def _brought(events: Sequence[AssessedEvent]) -> AttemptsRead | None:
    """Return the latest read that the events of one learner bring along, if it may serve."""
    reads: dict[int, AttemptsRead] = {}
    missing: dict[int, int] = {}
    for event in events:
        if event.read is None:
            return None
        t_us = event.read.t_us
        reads[t_us] = event.read
        missing[t_us] = missing.get(t_us, event.sharers) - 1
    return None if any(missing.values()) else reads[max(reads)]


def best_scores_of(
    key: ActivityKey,
    read: AttemptsRead,
    contents: list[str],
    *,
    details: bool,
    events: Sequence[AssessedEvent] = (),
) -> BestScores:
    """Return the best scores of `contents` over the attempts that were read."""
    wanted = set(contents)
    return BestScores(
        key,
        read.t_us,
        best_scores(attempt for attempt in read.attempts if attempt.content_id in wanted),
        contents,
        agg_details(read.attempts) if details else None,
        certificate_attempt_id(read.attempts),
        [event.record for event in events],
    )


class _FetchFn(BatchingDoFn[AssessedEvent]):
    def __init__(self, store: StoreConfig, retry: Retry, size: BatchSize) -> None:
        super().__init__("FetchBestScore", size)
        self._store = store
        self._retry = retry

    def size_of(self, element: AssessedEvent) -> int:
        return len(element.record.value)

    def flush(self, batch: list[AssessedEvent]) -> Iterator[BestScores]:
        store = self._retry.call(lambda: shared_store(self._store))
        yield from fetch_best_scores(store, batch, self._retry)


@dataclass
class FetchBestScore(beam.PTransform):
    """Read the attempts behind each event and find the best score of its assessment."""

    store: StoreConfig
    retry: Retry = Retry()
    size: BatchSize = BatchSize()

    def expand(self, events: beam.PCollection) -> beam.PCollection:
        """AssessedEvent -> BestScores, one a learner and batch in each batch of elements."""
        do_fn = _FetchFn(self.store, self.retry, self.size)
        return events | "Fetch" >> beam.ParDo(do_fn).with_output_types(BestScores)
