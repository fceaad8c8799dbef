"""What a run counts, by name, and histograms that every metric system can read.

Flink hands a Beam distribution to Prometheus as a zero. So a histogram is counters here: how many
there were, their sum, and how many were at most so much, as Prometheus has it.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable

from apache_beam.metrics import Metrics

from group_scores.scores.event import FIELDS

NAMESPACE = "group_scores"

REFUSING = (
    "ParseEvent",
    "CheckContent",
    "ScoreAttempt",
    "AwaitAttempt",
    "WriteAttempt",
    "WriteAgg",
)
"""The stages of a stream that can refuse an event."""

BATCHING = (
    "CheckContent",
    "AwaitAttempt",
    "WriteAttempt",
    "FetchBestScore",
    "WriteAgg",
    "Certificates",
    "DeadLetters",
)
"""The stages of a stream that gather batches."""

CALL_BOUNDS_MS = (10, 50, 100, 500, 1_000, 5_000)
LATENCY_BOUNDS_MS = (100, 250, 500, 1_000, 5_000, 60_000)


class Histogram:
    """Counters `COUNT`, `NAME` (the sum) and `NAME_le_BOUND` for each bound, of times in ms."""

    def __init__(self, name: str, count: str, bounds_ms: tuple[int, ...]) -> None:
        self._bounds = bounds_ms
        self._count = Metrics.counter(NAMESPACE, count)
        self._sum = Metrics.counter(NAMESPACE, name)
        self._up_to = [Metrics.counter(NAMESPACE, f"{name}_le_{bound}") for bound in bounds_ms]

    def add(self, times_ms: Iterable[float]) -> None:
        """Count them, all at once: a counter costs more than a number."""
        found = [0] * (len(self._bounds) + 1)
        total = 0.0
        for time_ms in times_ms:
            found[bisect_left(self._bounds, time_ms)] += 1
            total += time_ms
        self._count.inc(sum(found))
        self._sum.inc(round(total))
        below = 0
        for number, counter in zip(found, self._up_to, strict=False):
            below += number
            if below:
                counter.inc(below)


def _histogram(name: str, count: str, bounds_ms: tuple[int, ...]) -> tuple[str, ...]:
    return count, name, *(f"{name}_le_{bound}" for bound in bounds_ms)


STREAM_NAMES = (
    "events",
    "fields_ignored",
    "dead_letters",
    *(f"dead_letters_{stage}" for stage in REFUSING),
    *(f"dead_letters_field_{field}" for field in FIELDS),
    "attempts_written",
    "attempts_unchanged",
    "aggregates_written",
    "certificate_requests",
    *(f"batches_{stage}" for stage in BATCHING),
    *(f"batch_elements_{stage}" for stage in BATCHING),
    *_histogram("store_call_ms", "store_calls", CALL_BOUNDS_MS),
    "store_retries",
    "kafka_records",
    "kafka_bytes",
    "kafka_lag",
    "kafka_offsets_lost",
    "kafka_commit_failures",
    *_histogram("event_latency_ms", "event_latencies", LATENCY_BOUNDS_MS),
)
"""All metrics of a stream, as they are named in NAMESPACE. `kafka_lag` is a gauge."""
