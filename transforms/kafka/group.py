"""The offsets that a consumer group has committed: looked up, and moved forward only."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import kafka.errors as kafka_errors
from kafka import TopicPartition
from kafka.structs import OffsetAndMetadata

from group_scores.stores.errors import GroupScoresError
from group_scores.transforms.kafka.address import KafkaAddress
from group_scores.transforms.kafka.client import close_quietly, explain, open_consumer

log = logging.getLogger(__name__)


class GroupOffsets:
    """The committed offsets of one group in one topic. Not for several threads at once.

    It never joins the group: offsets are committed by hand, as for partitions assigned by hand.
    Every method raises AddressError or ServiceUnavailableError.
    """

    def __init__(self, address: KafkaAddress) -> None:
        self.address = address
        self._consumer: Any = None

    def committed(
        self, partitions: Iterable[int], timeout_s: float = 10.0
    ) -> dict[int, int | None]:
        """Return the next offset to read by partition, None where nothing was committed."""
        deadline = time.monotonic() + timeout_s
        keys = [self._key(partition) for partition in partitions]
        return {key.partition: self._call(_committed(key), deadline) for key in keys}

    def commit(self, offsets: Mapping[int, int], timeout_s: float = 10.0) -> None:
        """Set the next offset to read, by partition, whatever was committed before."""
        wanted = {self._key(p): OffsetAndMetadata(offset) for p, offset in offsets.items()}
        self._call(
            lambda consumer, left_ms: consumer.commit(wanted, timeout_ms=left_ms),
            time.monotonic() + timeout_s,
        )

    def log_ends(self, partitions: Iterable[int], timeout_s: float = 10.0) -> dict[int, int]:
        """Return the end of each partition's log, open transactions included."""
        keys = [self._key(partition) for partition in partitions]
        found = self._call(
            lambda consumer, left_ms: consumer.end_offsets(keys, timeout_ms=left_ms),
            time.monotonic() + timeout_s,
        )
        return {key.partition: offset for key, offset in found.items()}

    def close(self) -> None:
        """Disconnect; the next call connects again."""
        if self._consumer is not None:
            close_quietly(self._consumer)
            self._consumer = None

    def _key(self, partition: int) -> Any:
        return TopicPartition(self.address.topic, partition)

    def _call(self, request: Callable[[Any, float], Any], deadline: float) -> Any:
        try:
            if self._consumer is None:
                left_s = max(0.1, deadline - time.monotonic())
                self._consumer = open_consumer(
                    self.address, group=self.address.group, timeout_s=left_s, committed_only=False
                )
            return request(self._consumer, max(100.0, (deadline - time.monotonic()) * 1000))
        except (kafka_errors.KafkaError, RuntimeError) as error:
            # A client that met trouble keeps some of it (a refused login, for one) for good.
            self.close()
            raise explain(error, self.address) from error


def _committed(key: Any) -> Callable[[Any, float], Any]:
    return lambda consumer, left_ms: consumer.committed(key, timeout_ms=left_ms)


class Committer:
    """Moves a group's offsets forward after the work is safe. For any thread of a process.

    Finalizers run late, several for a partition and out of order, so an offset is committed only
    where it is greater than what this process has committed and than what the broker has.
    Nothing is raised: the data is written by then, and a commit that failed costs a repetition.
    """

    def __init__(self, address: KafkaAddress, *, retry_s: float = 10.0) -> None:
        self._offsets = GroupOffsets(address)
        self._address = address
        self._retry_s = retry_s
        self._lock = threading.Lock()
        self._done: dict[int, int] = {}
        self._rewound: dict[int, int] = {}
        self._failing = False
        self._failures = 0

    def generation(self, partition: int) -> int:
        """How often `partition` was rewound; to be passed to `commit` with what was read since."""
        return self._rewound.get(partition, 0)

    def commit(self, partition: int, offset: int, generation: int = 0) -> bool:
        """Commit `offset` as the next to read; say whether the group stands there or further."""
        with self._lock:
            if generation != self.generation(partition):
                return False
            if offset <= self._done.get(partition, -1):
                return True
            return self._try(partition, offset, forward=True)

    def rewind(self, partition: int, offset: int) -> bool:
        """Go back to `offset` because the log behind it was cut off; older commits are void."""
        with self._lock:
            self._rewound[partition] = self.generation(partition) + 1
            self._done.pop(partition, None)
            return self._try(partition, offset, forward=False)

    def take_failures(self) -> int:
        """Return how many commits failed since the last call."""
        with self._lock:
            count, self._failures = self._failures, 0
            return count

    def close(self) -> None:
        """Disconnect."""
        with self._lock:
            self._offsets.close()

    def _try(self, partition: int, offset: int, *, forward: bool) -> bool:
        # While the broker is away, every partition of every bundle would wait its full time.
        deadline = time.monotonic() + (1.0 if self._failing else self._retry_s)
        while True:
            left_s = deadline - time.monotonic()
            try:
                known = self._offsets.committed([partition], left_s)[partition] if forward else None
                if known is None or known < offset:
                    self._offsets.commit({partition: offset}, left_s)
                self._done[partition] = offset if known is None else max(offset, known)
                self._failing = False
                return True
            except GroupScoresError as error:
                if error.exit_code == 1 and deadline - time.monotonic() > 0.5:
                    time.sleep(0.25)
                    continue
                self._failing = True
                self._failures += 1
                log.warning(
                    "offset %d of %s partition %d was not committed to group %r: %s; until a later "
                    "commit succeeds, a new run would read again from the last committed offset",
                    offset,
                    self._address,
                    partition,
                    self._address.group,
                    error,
                )
                return False
