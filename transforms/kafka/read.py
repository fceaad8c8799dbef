"""ReadFromKafka: a bounded read of a topic, as a splittable DoFn around the plain reader.

The offsets are the only state: a restriction is a range of offsets of one partition. A partition
is read by one reader from start to end, and is never split between two: otherwise the offset of
the later part could be committed while the earlier one is still being worked on.
"""

from __future__ import annotations

import logging
import struct
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import apache_beam as beam
from apache_beam.io.restriction_trackers import OffsetRange, OffsetRestrictionTracker
from apache_beam.io.watermark_estimators import ManualWatermarkEstimator
from apache_beam.metrics import Metrics
from apache_beam.transforms.core import RestrictionProvider, WatermarkEstimatorProvider
from apache_beam.transforms.window import GlobalWindow
from apache_beam.utils import windowed_value
from apache_beam.utils.timestamp import MIN_TIMESTAMP, Timestamp
from apache_beam.utils.windowed_value import WindowedValue

from group_scores.scores.record import SourceRecord
from group_scores.stores.errors import AddressError
from group_scores.transforms.kafka.address import KafkaAddress
from group_scores.transforms.kafka.group import Committer
from group_scores.transforms.kafka.pool import ReaderPool
from group_scores.transforms.kafka.reader import KafkaReader, KafkaRecord, OffsetJump
from group_scores.transforms.kafka.topic import RETRY_S, KafkaTopic, resolve
from group_scores.transforms.metrics import NAMESPACE
from group_scores.transforms.residuals import loses_what_is_handed_back
from group_scores.transforms.resources import shared

log = logging.getLogger(__name__)

_POLL_MS = 1000
_POLL_RECORDS = 100  # between two looks at the clock
_POLL_BYTES = 8 << 20
_FIRST_MS: int = MIN_TIMESTAMP.micros // 1000
WINDOWS = (GlobalWindow(),)  # what follows an Impulse is in no other
_LAST_MS: int = GlobalWindow().max_timestamp().micros // 1000

PartitionRange = tuple[int, int, int]
"""A partition, the first offset to read, and one past the last."""


@dataclass(frozen=True)
class Turn:
    """How much of a partition is read before the offsets can be committed."""

    max_records: int = 20_000
    max_bytes: int = 64 << 20
    max_seconds: float = 5.0


@dataclass
class ReadFromKafka(beam.PTransform):
    """Read the records that a topic holds when the run starts, with their timestamps.

    After each `turn` the rest of the partition is handed back to the runner, which ends the bundle;
    when the runner finalizes it, the offsets are committed to the address's group. `retry_s` is how
    long brokers that are away are waited for.

    What reads from this must not be behind a shuffle on a runner that finalizes each stage by
    itself, as Beam's local runner does: the offsets would be committed before the work is done.
    """

    address: KafkaAddress
    turn: Turn = Turn()
    retry_s: float = RETRY_S

    def __post_init__(self) -> None:
        if self.address.role != "source":
            raise AddressError(f"{self.address} is the address of a sink, and cannot be read from")
        if self.address.until == "forever":
            raise AddressError("until=forever is read by StreamFromKafka; write until=latest")

    def expand(self, root: beam.pvalue.PBegin) -> beam.PCollection:
        """Nothing -> SourceRecord."""
        turn = None if loses_what_is_handed_back(root.pipeline) else self.turn
        return (
            root
            | "Now" >> beam.Impulse()
            | "Partitions"
            >> beam.ParDo(_PartitionsFn(self.address, self.retry_s)).with_output_types(
                PartitionRange
            )
            | "Records"
            >> beam.ParDo(_ReadFn(self.address, turn, self.retry_s)).with_output_types(SourceRecord)
        )


class _PartitionsFn(beam.DoFn):
    """Find out what there is to read, on the worker and when the run starts."""

    def __init__(self, address: KafkaAddress, retry_s: float) -> None:
        self._address = address
        self._retry_s = retry_s
        self._lost = Metrics.counter(NAMESPACE, "kafka_offsets_lost")

    def process(self, _: bytes) -> Iterator[PartitionRange]:
        topic = KafkaTopic(self._address, retry_s=self._retry_s)
        try:
            ranges, lost = resolve(topic)
        finally:
            topic.close()
        self._lost.inc(lost)
        offsets = sum(end - start for start, end in ranges.values())
        log.info("%s: %d offsets in %d partitions to read", self._address, offsets, len(ranges))
        for partition, (start, end) in sorted(ranges.items()):
            # An empty range, too, is read: its end is committed, so that the group has no lag.
            yield partition, start, end


class PartitionTracker(OffsetRestrictionTracker):
    """Offsets of one partition, claimed in ascending order with gaps, that only the end is cut off.

    A fraction of 0 is a checkpoint: the rest is read after what was claimed. Any other would be
    read beside it.
    """

    def try_split(self, fraction_of_remainder: float) -> tuple[OffsetRange, OffsetRange] | None:
        """See `RestrictionTracker`."""
        split: tuple[OffsetRange, OffsetRange] | None = None
        if fraction_of_remainder == 0:
            split = super().try_split(0)
        return split


class OffsetRangeCoder(beam.coders.Coder):
    """Two 64-bit numbers."""

    def encode(self, value: OffsetRange) -> bytes:
        """Return 16 bytes."""
        return struct.pack(">qq", value.start, value.stop)

    def decode(self, encoded: bytes) -> OffsetRange:
        """Return the range."""
        return OffsetRange(*struct.unpack(">qq", encoded))

    def is_deterministic(self) -> bool:
        """Equal ranges have equal bytes."""
        return True

    def __eq__(self, other: object) -> bool:
        return isinstance(other, OffsetRangeCoder)

    def __hash__(self) -> int:
        return hash(OffsetRangeCoder)


class _Ranges(RestrictionProvider):
    def initial_restriction(self, element: PartitionRange) -> OffsetRange:
        _, start, end = element
        return OffsetRange(start, end)

    def create_tracker(self, restriction: OffsetRange) -> PartitionTracker:
        return PartitionTracker(restriction)

    def restriction_size(self, _: PartitionRange, restriction: OffsetRange) -> int:
        return int(restriction.size())

    def restriction_coder(self) -> OffsetRangeCoder:
        return OffsetRangeCoder()


class Watermarks(WatermarkEstimatorProvider):
    """Begins before all times, and stays there until it is moved."""

    def initial_estimator_state(self, _: object, __: object) -> Timestamp:
        """Return the least time."""
        return MIN_TIMESTAMP

    def create_watermark_estimator(self, state: Timestamp) -> ManualWatermarkEstimator:
        """Return an estimator that goes on from there."""
        return ManualWatermarkEstimator(state)

    def estimator_state_coder(self) -> beam.coders.Coder:
        """Return the coder."""
        return beam.coders.TimestampCoder()


_TRACKER = beam.DoFn.RestrictionParam(_Ranges())
_ESTIMATOR = beam.DoFn.WatermarkEstimatorParam(Watermarks())


class _Progress:
    """How far a call of `process` has come, and whether its turn is over."""

    def __init__(self, start: int, turn: Turn | None) -> None:
        self.start = self.position = start
        self.claimed = start - 1
        self.time_ms = _FIRST_MS
        self.stopped = False
        self._turn = turn
        self._records = self._bytes = 0
        self._ends_at = time.monotonic() + turn.max_seconds if turn else 0.0

    def count(self, records: int, size: int) -> None:
        self._records += records
        self._bytes += size

    @property
    def room(self) -> tuple[int, int]:
        """How many records, and of how many bytes, are to come next at most."""
        if self._turn is None:
            return _POLL_RECORDS, _POLL_BYTES
        records = min(_POLL_RECORDS, self._turn.max_records - self._records)
        return records, min(_POLL_BYTES, self._turn.max_bytes - self._bytes)

    @property
    def over(self) -> bool:
        """A turn in which nothing came is not over: the reader counts how long it waits."""
        turn = self._turn
        return turn is not None and (
            self._records >= turn.max_records
            or self._bytes >= turn.max_bytes
            or (self.position > self.start and time.monotonic() >= self._ends_at)
        )


class ReadMetrics:
    """What a read of a topic counts."""

    def __init__(self) -> None:
        self.records = Metrics.counter(NAMESPACE, "kafka_records")
        self.bytes = Metrics.counter(NAMESPACE, "kafka_bytes")
        self.lost = Metrics.counter(NAMESPACE, "kafka_offsets_lost")
        self.failures = Metrics.counter(NAMESPACE, "kafka_commit_failures")
        self.lag = Metrics.gauge(NAMESPACE, "kafka_lag")


class _ReadFn(beam.DoFn):
    """Read a range of offsets of one partition, a turn at a time."""

    def __init__(self, address: KafkaAddress, turn: Turn | None, retry_s: float) -> None:
        self._address = address
        self._turn = turn
        self._retry_s = retry_s
        self._metrics = ReadMetrics()

    def process(
        self,
        element: PartitionRange,
        # Beam mixes up the parameters when this one stands behind the tracker.
        finalizer: Any = beam.DoFn.BundleFinalizerParam,
        tracker: Any = _TRACKER,
        estimator: Any = _ESTIMATOR,
    ) -> Iterator[WindowedValue]:
        partition = element[0]
        restriction = tracker.current_restriction()
        start, stop = restriction.start, restriction.stop
        progress = _Progress(start, self._turn)
        committer = shared(Committer, self._address)
        generation = committer.generation(partition)
        self._metrics.failures.inc(committer.take_failures())
        pool = shared(ReaderPool, self._address)
        with pool.lease(partition, start, stop, self._retry_s) as reader:
            yield from self._read(reader, partition, stop, tracker, progress)
            jumps = reader.take_jumps()
            self._metrics.lag.set(pool.note_lag(reader.lag()))
        if progress.time_ms > _FIRST_MS:
            _advance(estimator, progress.time_ms)
        if progress.position >= stop:
            tracker.try_claim(stop)
        elif not progress.stopped:
            _claim_gap(tracker, progress)
            tracker.defer_remainder()
        finalizer.register(self._when_safe(partition, stop, progress, jumps, generation))

    def _read(
        self, reader: KafkaReader, partition: int, stop: int, tracker: Any, progress: _Progress
    ) -> Iterator[WindowedValue]:
        topic = self._address.topic
        while progress.position < stop and not progress.over:
            records = reader.poll(_POLL_MS, *progress.room)
            self._count(records, progress)
            # All that was polled is claimed at once: a claim costs more than a record.
            if records and not tracker.try_claim(records[-1].offset):
                progress.stopped = True
                return
            for record in records:
                time_ms = event_time_ms(record.timestamp_ms)
                progress.time_ms = max(progress.time_ms, time_ms)
                yield windowed_value.create(
                    SourceRecord(record.value, topic, partition, record.offset),
                    time_ms * 1000,
                    WINDOWS,
                )
            progress.claimed = records[-1].offset if records else progress.claimed
            progress.position = reader.position(partition)

    def _count(self, records: list[KafkaRecord], progress: _Progress) -> None:
        size = sum(len(record.value) for record in records)
        progress.count(len(records), size)
        self._metrics.records.inc(len(records))
        self._metrics.bytes.inc(size)

    def _when_safe(
        self,
        partition: int,
        stop: int,
        progress: _Progress,
        jumps: list[OffsetJump],
        generation: int,
    ) -> Callable[[], None]:
        """Count what was lost, and return what is to be done when the bundle is finalized."""
        for jump in jumps:
            if jump.reason == "deleted":
                self._metrics.lost.inc(min(jump.resumed, stop) - jump.expected)
            else:
                self._metrics.lost.inc(stop - jump.expected)
                return partial(_rewind, self._address, partition, jump.resumed)
        offset = min(progress.position, stop)
        return partial(_commit, self._address, partition, offset, generation)


def _claim_gap(tracker: Any, progress: _Progress) -> None:
    """Claim the offsets without a record that were passed, so that the rest begins behind them."""
    if progress.position - 1 > progress.claimed:
        tracker.try_claim(progress.position - 1)


def event_time_ms(timestamp_ms: int) -> int:
    """The record's time, as far as Beam can tell it; without one, now."""
    if timestamp_ms < 0:
        return int(time.time() * 1000)
    return min(max(timestamp_ms, _FIRST_MS), _LAST_MS)


def _advance(estimator: Any, time_ms: int) -> None:
    """Move the watermark to the latest record's time, not back, and not into the future.

    One producer whose clock is wrong would make every later record late.
    """
    latest = Timestamp(micros=min(time_ms, int(time.time() * 1000)) * 1000)
    if latest > estimator.current_watermark():
        estimator.set_watermark(latest)


def _commit(address: KafkaAddress, partition: int, offset: int, generation: int) -> None:
    shared(Committer, address).commit(partition, offset, generation)


def _rewind(address: KafkaAddress, partition: int, offset: int) -> None:
    shared(Committer, address).rewind(partition, offset)
