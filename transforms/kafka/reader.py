"""A plain reader of one or several partitions. It knows no Beam and keeps no offsets but its own.

It sees committed transactions only, steps over gaps in the offsets (compaction, transaction
markers, aborted transactions), goes on where retention has cut records off, and waits for a
broker that is away.
"""

from __future__ import annotations

import logging
import sys
import time
from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any, Literal, NamedTuple

import kafka.errors as kafka_errors
from kafka import TopicPartition

from group_scores.stores.errors import ServiceUnavailableError
from group_scores.transforms.kafka.address import KafkaAddress
from group_scores.transforms.kafka.client import close_quietly, explain, open_consumer, patiently
from group_scores.transforms.kafka.errors import CorruptBatchError
from group_scores.transforms.kafka.inner import look_at, position_of
from group_scores.transforms.kafka.topic import RETRY_S

log = logging.getLogger(__name__)

_ASK_TIMEOUT_MS = 5_000
# Silence that is longer than a fetch waits for data (0.5 s) by far; then we ask what is there.
_SILENCE_S = 3.0
# All that was fetched: only a partition that is drained is fetched ahead while its records
# are worked on.
_EVERYTHING = 1_000_000
_NO_END = 1 << 63


class KafkaRecord(NamedTuple):
    """One record; `timestamp_ms` is -1 where it has none, `value` is b"" for a tombstone."""

    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes


class OffsetJump(NamedTuple):
    """Reading went on at `resumed` where `expected` was the next offset.

    `deleted`: retention took the offsets between. `truncated`: the log now ends before
    `expected` (an unclean leader election, or the topic was made anew).
    """

    partition: int
    expected: int
    resumed: int
    reason: Literal["deleted", "truncated"]


class KafkaReader:
    """Reads the partitions that are assigned to it, in order within each. Not for several threads.

    Every method that asks the broker raises AddressError where only a correction helps, and
    ServiceUnavailableError after `retry_s` seconds of waiting for nothing.
    """

    def __init__(self, address: KafkaAddress, *, retry_s: float = RETRY_S) -> None:
        self.address = address
        self.broken = False
        self.idle_since = time.monotonic()
        self.retry_s = retry_s
        self._consumer: Any = None
        self._buffers: dict[int, deque[KafkaRecord]] = {}
        self._fetched: dict[int, int] = {}
        self._until: dict[int, int] = {}
        self._given_up: set[int] = set()  # of these the consumer stands elsewhere than we say
        self._jumps: list[OffsetJump] = []
        self._waited_s = 0.0
        self._asked_at_s = 0.0
        self._trouble = ""
        self._warned = False

    def assign(self, starts: Mapping[int, int], until: Mapping[int, int] | None = None) -> None:
        """Read from `starts` (offset by partition) on, up to but without `until` where given.

        What is fetched already is kept for a partition that goes on where it stands.
        """
        consumer = self._connected()
        if set(starts) != set(self._fetched):
            consumer.assign([self._key(partition) for partition in starts])
            self._buffers = {partition: deque() for partition in starts}
            self._fetched = {}
        self._until = dict(until or {})
        self._jumps.clear()
        for partition, offset in starts.items():
            astray = partition not in self._fetched or partition in self._given_up
            if astray or self.position(partition) != offset:
                self._seek(partition, offset)
            consumer.resume(self._key(partition))
        self._pause_finished()
        self._progress()

    def poll(
        self, timeout_ms: float, max_records: int, max_bytes: int = sys.maxsize
    ) -> list[KafkaRecord]:
        """Return the next records; none when nothing came in `timeout_ms`.

        They are at most `max_records`, and end with the one whose value reaches `max_bytes`.
        Raises CorruptBatchError, AddressError (the right to read was withdrawn) and
        ServiceUnavailableError.
        """
        deadline = time.monotonic() + timeout_ms / 1000
        while True:
            records = self._take(max_records, max_bytes)
            left_s = deadline - time.monotonic()
            if records or self.finished or left_s <= 0 < timeout_ms:
                return records
            self._fetch(max(0.0, min(left_s, _SILENCE_S)))
            if timeout_ms <= 0:
                return self._take(max_records, max_bytes)

    def position(self, partition: int) -> int:
        """Return the next offset to be delivered; every offset before it is dealt with."""
        buffer = self._buffers[partition]
        return buffer[0].offset if buffer else self._fetched[partition]

    def stands_at(self, partition: int, offset: int) -> bool:
        """Whether this partition alone is read, and `offset` is what comes next."""
        return (
            set(self._fetched) == {partition}
            and not self._given_up
            and self.position(partition) == offset
        )

    @property
    def finished(self) -> bool:
        """Whether every partition has an end and has reached it."""
        return all(
            partition in self._until and self.position(partition) >= self._until[partition]
            for partition in self._fetched
        )

    def take_jumps(self) -> list[OffsetJump]:
        """Return the jumps since the last call."""
        jumps, self._jumps = self._jumps, []
        return jumps

    def lag(self) -> dict[int, int]:
        """Return how many offsets lie ahead, by partition, as of the last fetch of each."""
        known = {p: self._consumer.highwater(self._key(p)) for p in self._fetched}
        return {p: max(0, end - self.position(p)) for p, end in known.items() if end is not None}

    def close(self) -> None:
        """Disconnect. The reader can be assigned again."""
        self._buffers, self._fetched = {}, {}
        if self._consumer is not None:
            close_quietly(self._consumer)
            self._consumer = None

    # How it is done

    def _key(self, partition: int) -> Any:
        return TopicPartition(self.address.topic, partition)

    def _connected(self) -> Any:
        if self._consumer is None:
            what = str(self.address)
            self._consumer = patiently(
                lambda: open_consumer(self.address), retry_s=self.retry_s, what=what
            )
            self.broken = False
        return self._consumer

    def _take(self, max_records: int, max_bytes: int) -> list[KafkaRecord]:
        taken: list[KafkaRecord] = []
        size = 0
        for partition, buffer in list(self._buffers.items()):
            until = self._until.get(partition, _NO_END)
            # The next time it is another's turn: one that always has more holds up no other.
            self._buffers[partition] = self._buffers.pop(partition)
            while buffer and buffer[0].offset < until:
                if len(taken) >= max_records or size >= max_bytes:
                    return taken
                record = buffer.popleft()
                taken.append(record)
                size += len(record.value)
        return taken

    def _fetch(self, timeout_s: float) -> None:
        """Get what there is into the buffers, and find out why when there is nothing."""
        began = time.monotonic()
        fetched: dict[Any, list[Any]] = {}
        try:
            fetched = self._consumer.poll(timeout_s * 1000, max_records=_EVERYTHING)
        except kafka_errors.OffsetOutOfRangeError as error:
            self._ask_where(error.args[0])
        except kafka_errors.LogTruncationError as error:
            for key, place in error.divergent_offsets.items():
                self._truncated(key.partition, place and place.offset)
        except kafka_errors.CorruptRecordError as error:
            raise self._undecodable(error) from error
        except kafka_errors.KafkaError as error:
            if not error.retriable:
                self.broken = True
                raise explain(error, self.address) from error
            self._trouble = str(error)
            time.sleep(min(0.1, timeout_s))
        except Exception as error:  # a codec's own
            raise self._undecodable(error) from error
        for key, records in fetched.items():
            self._buffers[key.partition].extend(
                KafkaRecord(r.partition, r.offset, r.timestamp, r.key, r.value or b"")
                for r in records
            )
        if self._moved(key.partition for key in fetched or map(self._key, self._fetched)):
            self._pause_finished()
            self._progress()
        else:
            self._waited_s += time.monotonic() - began
            if self._waited_s - self._asked_at_s >= _SILENCE_S:
                self._find_out()

    def _moved(self, partitions: Iterable[int]) -> bool:
        """Note how far the consumer has come; markers and gaps move it without a record."""
        moved = False
        for partition in set(partitions) - self._given_up:
            position = position_of(self._consumer, self._key(partition))
            if position != self._fetched[partition]:
                self._fetched[partition] = position
                moved = True
        return moved

    def _seek(self, partition: int, offset: int) -> None:
        self._consumer.seek(self._key(partition), offset)
        self._fetched[partition] = offset
        self._buffers[partition].clear()
        self._given_up.discard(partition)

    def _pause_finished(self) -> None:
        for partition, until in self._until.items():
            if self._fetched[partition] >= until:
                self._consumer.pause(self._key(partition))

    def _progress(self) -> None:
        if self._warned:
            log.info("%s: reading goes on", self.address)
        self._waited_s = self._asked_at_s = 0.0
        self._trouble, self._warned = "", False

    def _undecodable(self, error: Exception) -> CorruptBatchError:
        # kafka-python must not be polled again: it would spin for ever on the spent iterator.
        self.broken = True
        where = ", ".join(f"{p} at offset {self._fetched[p]}" for p in self._fetched)
        return CorruptBatchError(
            f"{self.address} partition {where}: a batch of records is damaged or not decodable "
            f"({type(error).__name__}: {error}); restore it from a replica, or commit a later "
            f"offset to group {self.address.group!r}"
        )

    # Silence, and what is gone

    def _find_out(self) -> None:
        """Nothing came for a while: nothing there, a gap up to the end, or a broker away?"""
        open_ones = [p for p in self._fetched if self.position(p) < self._until.get(p, _NO_END)]
        began = time.monotonic()
        try:
            keys = [self._key(partition) for partition in open_ones]
            ends = self._consumer.end_offsets(keys, timeout_ms=_ASK_TIMEOUT_MS)
        except kafka_errors.KafkaError as error:
            self._trouble = self._trouble or str(error)
        else:
            silent = [
                p for p in open_ones if p in self._until or ends[self._key(p)] > self.position(p)
            ]
            stepped = [self._step_over(partition) for partition in silent]
            if not silent or any(stepped):
                self._progress()
                return
        self._waited_s += time.monotonic() - began
        self._asked_at_s = self._waited_s
        if self._waited_s >= self.retry_s:
            raise ServiceUnavailableError(
                f"{self.address} gave nothing for {self._waited_s:.0f} s although there is more "
                f"to read{': ' + self._trouble if self._trouble else ''}; check the broker"
            )
        if not self._warned:
            self._warned = True
            log.warning(
                "%s gives nothing%s; waiting for up to %.0f s",
                self.address,
                f" ({self._trouble})" if self._trouble else "",
                self.retry_s,
            )

    def _step_over(self, partition: int) -> bool:
        """Go on behind a gap that reaches to the end, or note that the log was cut off."""
        position, until = self.position(partition), self._until.get(partition)
        seen = look_at(self._consumer, self._key(partition), position)
        if seen is None or seen.has_records:
            return False
        if seen.log_end < max(position, until or 0):
            return self._truncated(partition, None)
        if seen.readable_end <= position:
            return False
        log.info("%s partition %d: no record from %d on", self.address, partition, position)
        self._seek(partition, seen.readable_end)
        self._pause_finished()
        return True

    def _ask_where(self, places: Mapping[Any, int]) -> None:
        try:
            earliest = self._consumer.beginning_offsets(list(places), timeout_ms=_ASK_TIMEOUT_MS)
        except kafka_errors.KafkaError as error:
            self._trouble = str(error)
            return
        for key, expected in places.items():
            if expected < earliest[key]:
                self._jump(OffsetJump(key.partition, expected, earliest[key], "deleted"))
            else:
                self._truncated(key.partition, earliest[key])

    def _truncated(self, partition: int, resumed: int | None) -> bool:
        if resumed is None:
            try:
                key = self._key(partition)
                resumed = self._consumer.beginning_offsets([key], timeout_ms=_ASK_TIMEOUT_MS)[key]
            except kafka_errors.KafkaError as error:
                self._trouble = str(error)
                return False
        self._jump(OffsetJump(partition, self.position(partition), resumed, "truncated"))
        return True

    def _jump(self, jump: OffsetJump) -> None:
        gone = {
            "deleted": "retention deleted what was to be read",
            "truncated": "the log was cut off or the topic made anew",
        }[jump.reason]
        log.warning(
            "%s partition %d: offset %d is gone (%s); going on at %d",
            self.address,
            jump.partition,
            jump.expected,
            gone,
            jump.resumed,
        )
        self._jumps.append(jump)
        self._seek(jump.partition, jump.resumed)
        until = self._until.get(jump.partition)
        if jump.reason == "truncated" and until is not None:
            # The stretch that was to be read is no more; what replaced it is the next run's.
            self._fetched[jump.partition] = max(until, jump.resumed)
            self._given_up.add(jump.partition)
        self._pause_finished()
        self._progress()
