"""The pipeline's work without Beam: the plain loop that it is measured against.

Everything that does work is the pipeline's own: readers, rules, store, the functions of the
stages, the size of a batch. What is left out is what Beam adds: elements that are passed on one by
one, coders, counters, bundles. A stage's function is looked up in its module at each call, so that
`stages` can put a clock around it.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

from group_scores.scores import METRICS, SourceRecord
from group_scores.stores import Store, StoreConfig
from group_scores.transforms import (
    dead_letter,
    fetch_best_score,
    merge_agg,
    parse_event,
    score_attempt,
    write_agg,
    write_attempt,
)
from group_scores.transforms.batching import BatchSize
from group_scores.transforms.collector import settle
from group_scores.transforms.elements import Refusal, ScoredEvent
from group_scores.transforms.kafka.address import KafkaAddress
from group_scores.transforms.kafka.group import Committer
from group_scores.transforms.kafka.pool import ReaderPool
from group_scores.transforms.kafka.topic import RETRY_S, KafkaTopic, resolve
from group_scores.transforms.resources import shared, shared_store
from group_scores.transforms.retry import Retry
from group_scores.transforms.sinks import shared_sink

_POLL_MS = 1000
_POLL_RECORDS = 100  # as the pipeline's source asks for


def run_loop(source: str, store: str, dead_letters: str) -> int:
    """Read, score and write until the end of the source; return the number of events."""
    settle()
    opened = shared_store(StoreConfig(store))
    records, finish = _records(source)
    events = 0
    while batch := list(itertools.islice(records, BatchSize().elements)):
        process(batch, opened, dead_letters, Retry())
        events += len(batch)
    finish()
    return events


def process(records: list[SourceRecord], store: Store, dead_letters: str, retry: Retry) -> None:
    """Take one batch through every stage."""
    refused: list[Refusal] = []
    scored: list[ScoredEvent] = []
    for record in records:
        parsed = parse_event.parse_record(record)
        result = parsed if isinstance(parsed, Refusal) else score_attempt.score_event(parsed)
        if isinstance(result, Refusal):
            refused.append(result)
        else:
            scored.append(result)
    attempts = write_attempt.write_attempts(store, scored, retry)
    best = fetch_best_score.fetch_best_scores(store, attempts.assessed, retry)
    updates = [merge_agg.merge_agg(one, METRICS) for one in best]
    aggregates = write_agg.write_aggregates(store, updates, METRICS, retry)
    refused += attempts.refused + aggregates.refused
    if refused:
        dead_letter.write_dead_letters(shared_sink(dead_letters), refused, retry)


def read_topic(address: KafkaAddress) -> Iterator[tuple[int, list[SourceRecord]]]:
    """Yield (partition, records) to the end that the topic has now, a partition at a time."""
    topic = KafkaTopic(address)
    ranges, _ = resolve(topic)
    topic.close()
    pool = shared(ReaderPool, address)
    for partition, (start, end) in sorted(ranges.items()):
        with pool.lease(partition, start, end, RETRY_S) as reader:
            while reader.position(partition) < end:
                records = reader.poll(_POLL_MS, _POLL_RECORDS)
                yield (
                    partition,
                    [SourceRecord(r.value, address.topic, r.partition, r.offset) for r in records],
                )


def _records(source: str) -> tuple[Iterator[SourceRecord], Callable[[], None]]:
    """Return the source's records, and what is to be done when all of them are dealt with."""
    if not source.startswith("kafka:"):
        return _lines(source), lambda: None
    address = KafkaAddress.parse(source)
    ends: dict[int, int] = {}

    def read() -> Iterator[SourceRecord]:
        for partition, records in read_topic(address):
            ends[partition] = records[-1].offset + 1 if records else ends.get(partition, 0)
            yield from records

    def commit() -> None:
        for partition, offset in ends.items():
            shared(Committer, address).commit(partition, offset)

    return read(), commit


def _lines(path: str) -> Iterator[SourceRecord]:
    position = 0
    with open(path, "rb") as file:
        for line in file:
            yield SourceRecord(line.rstrip(b"\r\n"), path, None, position)
            position += len(line)
