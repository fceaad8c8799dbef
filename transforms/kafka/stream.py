"""StreamFromKafka: an endless read of a topic, as a timer that sets itself again.

The bounded read hands the rest of a partition back to the runner after each turn. Flink keeps a
little of every such hand-over in its checkpoints for ever (apache/beam#27648), so a read that lasts
for months must not. Here the offsets are keyed state: a few bytes a partition, whatever was read.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import apache_beam as beam
import msgspec
from apache_beam.io.iobase import RestrictionProgress, RestrictionTracker
from apache_beam.transforms.core import RestrictionProvider
from apache_beam.transforms.timeutil import TimeDomain
from apache_beam.transforms.userstate import ReadModifyWriteStateSpec, TimerSpec, on_timer
from apache_beam.transforms.window import GlobalWindow
from apache_beam.utils import windowed_value
from apache_beam.utils.timestamp import Duration, Timestamp
from apache_beam.utils.windowed_value import WindowedValue

from group_scores.scores.record import SourceRecord
from group_scores.transforms.kafka.address import KafkaAddress
from group_scores.transforms.kafka.group import Committer
from group_scores.transforms.kafka.read import WINDOWS, ReadMetrics, Watermarks, event_time_ms
from group_scores.transforms.kafka.reader import KafkaReader, OffsetJump
from group_scores.transforms.kafka.share import Shares
from group_scores.transforms.kafka.topic import RETRY_S
from group_scores.transforms.metrics import LATENCY_BOUNDS_MS, Histogram
from group_scores.transforms.resources import shared

_HOLD_S = 30 * 86_400
_EARLY_S = 86_400
_POLL_MS = 150
"""How long a call waits where nothing comes. It holds up the checkpoint for so long."""
_COMMIT_S = 1.0
_WITHOUT_S = 5  # a reader without a partition


@dataclass(frozen=True)
class Call:
    """How much is read at once: what a bundle of the runner gets from one timer.

    Where much is to be read a bundle's end costs up to half a second: what every stage has left is
    written, one after another, and the runner comes to the next timer. With a tenth of this it was
    a third of the time. Where little comes a call ends at once.
    """

    max_records: int = 10_000
    max_bytes: int = 64 << 20
    max_seconds: float = 2.0


@dataclass
class StreamFromKafka(beam.PTransform):
    """Read a topic for ever, from where the address says, or where the runner's state stands.

    `readers` share the partitions, each has those whose number it is modulo their number, and finds
    new ones. With the keys of `readers` a runner can spread them over its workers. Offsets are
    committed to the address's group when the bundle that read them has ended well: what is fused
    with the read has been written by then. So there must be no shuffle in between.

    `drained_by_timers` says that the runner drains by firing every timer before its time, as Flink
    does; others tell the input itself.
    """

    address: KafkaAddress
    readers: tuple[bytes, ...] = (b"0",)
    call: Call = Call()
    retry_s: float = RETRY_S
    drained_by_timers: bool = False

    def expand(self, root: beam.pvalue.PBegin) -> beam.PCollection:
        """Nothing -> SourceRecord."""
        stream = _StreamFn(self.address, self.call, self.retry_s)
        return (
            root
            | "Now" >> beam.Impulse()
            | "Readers"
            >> beam.ParDo(_ReadersFn(self.readers, self.drained_by_timers)).with_output_types(
                tuple[bytes, tuple[int, int]]
            )
            | "Records" >> beam.ParDo(stream).with_output_types(SourceRecord)
        )


class _NeverDone(RestrictionTracker):
    """Of the one restriction that there is: until when it is deferred (epoch s), 0 at first."""

    def __init__(self, until_s: int) -> None:
        self._until_s = until_s
        self._split = False

    def current_restriction(self) -> int:
        return self._until_s

    def try_claim(self, _: object) -> bool:
        return not self._split

    def try_split(self, _: float) -> tuple[int, int] | None:
        if self._split:
            return None
        self._split = True
        return self._until_s, int(time.time()) + _HOLD_S

    def check_done(self) -> None:
        """It is handed back, or the job is being drained."""

    def current_progress(self) -> RestrictionProgress:
        return RestrictionProgress(fraction=0.0)

    def is_bounded(self) -> bool:
        return False


class _Forever(RestrictionProvider):
    def initial_restriction(self, _: bytes) -> int:
        return 0

    def create_tracker(self, restriction: int) -> _NeverDone:
        return _NeverDone(restriction)

    def restriction_size(self, _: bytes, __: int) -> int:
        return 1

    def restriction_coder(self) -> beam.coders.Coder:
        return beam.coders.VarIntCoder()


_TRACKER = beam.DoFn.RestrictionParam(_Forever())
_ESTIMATOR = beam.DoFn.WatermarkEstimatorParam(Watermarks())  # held at the least time


class _ReadersFn(beam.DoFn):
    """Start the readers once, and never end: an input that has ended fires no timers."""

    def __init__(self, readers: tuple[bytes, ...], drained_by_timers: bool) -> None:
        self._readers = readers
        self._drained_by_timers = drained_by_timers

    @beam.DoFn.unbounded_per_element()  # type: ignore[untyped-decorator]
    def process(
        self,
        _: bytes,
        tracker: Any = _TRACKER,
        estimator: Any = _ESTIMATOR,
    ) -> Iterator[tuple[bytes, tuple[int, int]]]:
        until_s = tracker.current_restriction()
        if not until_s:
            for number, key in enumerate(self._readers):
                yield key, (number, len(self._readers))
        elif self._drained_by_timers and time.time() < until_s - _EARLY_S:
            return  # the job is being drained, and the input ends
        tracker.defer_remainder(Duration(seconds=_HOLD_S))


class _State(msgspec.Struct):
    """What a reader goes on from: its number, of how many, and the next offset by partition.

    A run that goes on from a savepoint with another parallelism has the readers of the first one:
    they share the partitions as they did.
    """

    reader: int
    readers: int
    offsets: dict[int, int]


_decode = msgspec.msgpack.Decoder(_State).decode
_STATE = ReadModifyWriteStateSpec("state", beam.coders.BytesCoder())
_AGAIN = TimerSpec("again", TimeDomain.REAL_TIME)
_END = TimerSpec("end", TimeDomain.WATERMARK)
_STATE_PARAM = beam.DoFn.StateParam(_STATE)
_AGAIN_PARAM = beam.DoFn.TimerParam(_AGAIN)
_END_PARAM = beam.DoFn.TimerParam(_END)


class _StreamFn(beam.DoFn):
    """Read a share of the partitions each time the timer fires."""

    def __init__(self, address: KafkaAddress, call: Call, retry_s: float) -> None:
        self._address = address
        self._call = call
        self._retry_s = retry_s
        self._metrics = ReadMetrics()
        self._latency = Histogram("event_latency_ms", "event_latencies", LATENCY_BOUNDS_MS)
        self._unsafe: dict[int, tuple[int, int]] = {}
        self._committed_s = 0.0
        self._times_ms: list[int] = []

    def start_bundle(self) -> None:
        """Commit what the bundle before this one has read: with it, all that follows has ended.

        A bundle that failed takes its instance with it.
        """
        if self._times_ms:
            # What was read then has been written: how old is it? Bundles follow at once.
            now_ms = time.time() * 1000
            self._latency.add([now_ms - time_ms for time_ms in self._times_ms])
            self._times_ms.clear()
        if self._unsafe and time.monotonic() - self._committed_s >= _COMMIT_S:
            committer = shared(Committer, self._address)
            for partition, (offset, generation) in self._unsafe.items():
                committer.commit(partition, offset, generation)
            self._metrics.failures.inc(committer.take_failures())
            self._unsafe.clear()
            self._committed_s = time.monotonic()

    def process(
        self,
        element: tuple[bytes, tuple[int, int]],
        state: Any = _STATE_PARAM,
        again: Any = _AGAIN_PARAM,
        end: Any = _END_PARAM,
    ) -> None:
        state.write(msgspec.msgpack.encode(_State(*element[1], {})))
        again.set(Timestamp.now())
        end.set(GlobalWindow().max_timestamp())

    @on_timer(_END)  # type: ignore[untyped-decorator]
    def end(self, state: Any = _STATE_PARAM, again: Any = _AGAIN_PARAM) -> None:
        """Read no more: the input has ended, which it does when the job is drained.

        A drain waits until there is no timer.
        """
        state.clear()
        again.clear()

    @on_timer(_AGAIN)  # type: ignore[untyped-decorator]
    def read(
        self,
        state: Any = _STATE_PARAM,
        again: Any = _AGAIN_PARAM,
    ) -> Iterator[WindowedValue]:
        """Read what there is, up to the size of a call, and set the timer again."""
        told = state.read()
        if told is None:
            return
        known = _decode(told)
        share = shared(Shares, self._address).of(known.reader, known.readers, self._retry_s)
        with share.reading(known.offsets) as (reader, offsets):
            yield from self._records_of(reader, offsets)
            self._metrics.lost.inc(sum(map(self._gone, reader.take_jumps())))
            self._metrics.lag.set(sum(reader.lag().values()))
        state.write(msgspec.msgpack.encode(_State(known.reader, known.readers, offsets)))
        again.set(Timestamp.now() + (0 if offsets else _WITHOUT_S))

    def _records_of(self, reader: KafkaReader, offsets: dict[int, int]) -> Iterator[WindowedValue]:
        """Yield records and move the offsets on."""
        call, topic, times_ms = self._call, self._address.topic, self._times_ms
        count = size = 0
        ends_s = time.monotonic() + call.max_seconds
        while count < call.max_records and size < call.max_bytes:
            wait_ms = 0 if count else _POLL_MS
            records = reader.poll(wait_ms, call.max_records - count, call.max_bytes - size)
            for record in records:
                size += len(record.value)
                times_ms.append(record.timestamp_ms)
                yield windowed_value.create(
                    SourceRecord(record.value, topic, record.partition, record.offset),
                    event_time_ms(record.timestamp_ms) * 1000,
                    WINDOWS,
                )
            count += len(records)
            if not records or time.monotonic() >= ends_s:
                break
        self._metrics.records.inc(count)
        self._metrics.bytes.inc(size)
        committer = shared(Committer, self._address)
        for partition in offsets:
            offsets[partition] = position = reader.position(partition)
            # Also where nothing came: the worker that read up to here may have been killed between
            # the checkpoint and the commit.
            self._unsafe[partition] = position, committer.generation(partition)

    def _gone(self, jump: OffsetJump) -> int:
        """Return how many offsets a jump has lost."""
        if jump.reason == "deleted":
            return jump.resumed - jump.expected
        shared(Committer, self._address).rewind(jump.partition, jump.resumed)
        return 0
