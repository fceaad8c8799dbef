"""What can be asked of a topic: its partitions, where they begin and end, where a group stands."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import kafka.errors as kafka_errors
from kafka import TopicPartition

from group_scores.stores.errors import AddressError
from group_scores.transforms.kafka.address import KafkaAddress
from group_scores.transforms.kafka.client import close_quietly, explain, open_consumer, patiently
from group_scores.transforms.kafka.group import GroupOffsets
from group_scores.transforms.kafka.inner import partitions_of

log = logging.getLogger(__name__)
T = TypeVar("T")

RETRY_S = 120.0
_TIMEOUT_S = 10.0

Range = tuple[int, int]
"""The first offset, and one past the last."""


class KafkaTopic:
    """Questions to the brokers about one topic. Not for several threads at once.

    Every method raises AddressError where only a correction helps, and ServiceUnavailableError
    when the brokers have been away for `retry_s`. A question waits at most `timeout_s` each time.
    """

    def __init__(
        self, address: KafkaAddress, *, retry_s: float = RETRY_S, timeout_s: float = _TIMEOUT_S
    ) -> None:
        self.address = address
        self._retry_s = retry_s
        self.timeout_s = timeout_s
        self._consumer: Any = None
        self._group = GroupOffsets(address)

    @property
    def consumer(self) -> Any:
        """The connection, made at the first use."""
        if self._consumer is None:
            self._consumer = open_consumer(self.address, timeout_s=self.timeout_s)
        return self._consumer

    def partitions(self) -> list[int]:
        """Return the numbers of the partitions, ascending."""
        name = self.address.topic
        found = self._ask(lambda consumer, _: partitions_of(consumer, name, self.timeout_s))
        if not found:
            raise AddressError(
                f"topic {name!r} does not exist on {self.address.servers} (or this user may not "
                "see it); create it, or correct the address"
            )
        return found

    def ranges(self, partitions: Iterable[int]) -> dict[int, Range]:
        """Return by partition what can be read now.

        It ends before the first transaction that is still open: what lies behind comes later.
        """
        keys = self._keys(partitions)
        first = self._ask(lambda consumer, ms: consumer.beginning_offsets(keys, timeout_ms=ms))
        end = self._ask(lambda consumer, ms: consumer.end_offsets(keys, timeout_ms=ms))
        # Retention may have moved the start between the two questions.
        return {key.partition: (min(first[key], end[key]), end[key]) for key in keys}

    def at_time(self, time_ms: int, partitions: Iterable[int]) -> dict[int, int | None]:
        """Return by partition the first offset of `time_ms` or later, None where all are older."""
        keys = self._keys(partitions)
        found = self._ask(
            lambda consumer, ms: consumer.offsets_for_times(dict.fromkeys(keys, time_ms), ms)
        )
        return {key.partition: place and place.offset for key, place in found.items()}

    def committed(self, partitions: Iterable[int]) -> dict[int, int | None]:
        """Return by partition the next offset that the group would read, None for no commit."""
        numbers = list(partitions)
        return self._patiently(lambda: self._group.committed(numbers, self.timeout_s))

    def log_ends(self, partitions: Iterable[int]) -> dict[int, int]:
        """Return by partition the end of the log, transactions that are still open included."""
        numbers = list(partitions)
        return self._patiently(lambda: self._group.log_ends(numbers, self.timeout_s))

    def close(self) -> None:
        """Disconnect; the next question connects again."""
        self._group.close()
        if self._consumer is not None:
            close_quietly(self._consumer)
            self._consumer = None

    def _keys(self, partitions: Iterable[int]) -> list[Any]:
        return [TopicPartition(self.address.topic, partition) for partition in partitions]

    def _ask(self, question: Callable[[Any, int], T]) -> T:
        def attempt() -> T:
            try:
                return question(self.consumer, int(self.timeout_s * 1000))
            except kafka_errors.KafkaError as error:
                raise explain(error, self.address) from error

        return self._patiently(attempt)

    def _patiently(self, attempt: Callable[[], T]) -> T:
        return patiently(attempt, retry_s=self._retry_s, what=str(self.address))


def resolve(topic: KafkaTopic, level: int = logging.WARNING) -> tuple[dict[int, Range], int]:
    """Return by partition what a read up to now has to read, and how many offsets are lost to it.

    Lost are the offsets between the committed one and the first that retention has left; a line in
    the log (at `level`) tells of each such partition. Raises what `topic` raises.
    """
    address = topic.address
    partitions = topic.partitions()
    ranges = topic.ranges(partitions)
    if address.role == "sink" or address.start == "earliest":
        return ranges, 0
    if address.start == "latest":
        return {p: (end, end) for p, (_, end) in ranges.items()}, 0
    if isinstance(address.start, int):
        found = topic.at_time(address.start, partitions)
        return {p: (_within(found[p], ranges[p]), ranges[p][1]) for p in partitions}, 0
    return _from_committed(topic, ranges, level)


def _within(offset: int | None, known: Range) -> int:
    first, end = known
    return end if offset is None else min(max(offset, first), end)


def _from_committed(
    topic: KafkaTopic, ranges: dict[int, Range], level: int
) -> tuple[dict[int, Range], int]:
    address = topic.address
    known = topic.committed(ranges)
    # Another reader of the group may have committed offsets of transactions that are open now.
    ahead = [p for p, offset in known.items() if offset is not None and offset > ranges[p][1]]
    log_ends = topic.log_ends(ahead) if ahead else {}
    found: dict[int, Range] = {}
    lost = 0
    for partition, (first, end) in ranges.items():
        offset = known[partition]
        if offset is None:
            offset = first
        elif offset < first:
            lost += first - offset
            log.log(
                level,
                "%s partition %d: retention deleted the offsets %d to %d before group %r read them",
                address,
                partition,
                offset,
                first - 1,
                address.group,
            )
            offset = first
        elif offset > log_ends.get(partition, offset):
            log.log(
                level,
                "%s partition %d: group %r stands at %d and the log ends at %d: it was cut off or "
                "made anew; reading from its start",
                address,
                partition,
                address.group,
                offset,
                log_ends[partition],
            )
            offset = first
        found[partition] = (offset, max(offset, end))
    return found, lost
