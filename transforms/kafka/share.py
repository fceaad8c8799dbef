"""The readers of an endless read in this process: each has a share of the partitions."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from group_scores.transforms.kafka.address import KafkaAddress
from group_scores.transforms.kafka.reader import KafkaReader
from group_scores.transforms.kafka.topic import KafkaTopic, resolve

_LOOK_S = 30.0  # for new partitions
_IDLE_S = 60.0


class Share:
    """One reader, and what it knows of its partitions. For one user at a time."""

    def __init__(self, address: KafkaAddress, number: int, of: int, retry_s: float) -> None:
        self._address = address
        self._number = number
        self._of = of
        self._retry_s = retry_s
        self._reader = KafkaReader(address, retry_s=retry_s)
        self._lock = threading.Lock()
        self._looked_s = -_LOOK_S
        self.used_s = time.monotonic()

    @contextmanager
    def reading(self, offsets: Mapping[int, int]) -> Iterator[tuple[KafkaReader, dict[int, int]]]:
        """Lend the reader, standing at `offsets`, and these with those of new partitions.

        Raises what `KafkaReader` and `KafkaTopic` raise.
        """
        with self._lock:
            self.used_s = time.monotonic()
            starts = {**self._new(offsets), **offsets}
            try:
                if starts:
                    self._reader.assign(starts)
                yield self._reader, starts
            except BaseException:
                self._reader.close()
                raise
            finally:
                self.used_s = time.monotonic()

    def _new(self, known: Mapping[int, int]) -> dict[int, int]:
        """Return where the partitions begin that nothing is known of; now and then.

        At the first time as the address says; one that was added since is read from its start.
        """
        now_s = time.monotonic()
        if known and now_s - self._looked_s < _LOOK_S:
            return {}
        self._looked_s = now_s
        topic = KafkaTopic(self._address, retry_s=self._retry_s)
        try:
            if not known:
                ranges, _ = resolve(topic)
            else:
                ours = [p for p in topic.partitions() if p % self._of == self._number]
                added = [p for p in ours if p not in known]
                ranges = topic.ranges(added) if added else {}
        finally:
            topic.close()
        return {p: start for p, (start, _) in ranges.items() if p % self._of == self._number}

    def close(self) -> None:
        """Disconnect."""
        self._reader.close()


class Shares:
    """The shares of one topic in this process."""

    def __init__(self, address: KafkaAddress) -> None:
        self._address = address
        self._lock = threading.Lock()
        self._shares: dict[tuple[int, int], Share] = {}

    def of(self, number: int, of: int, retry_s: float) -> Share:
        """Return a share; those that another worker has taken over since are closed."""
        with self._lock:
            key = (number, of)
            if key not in self._shares:
                self._shares[key] = Share(self._address, number, of, retry_s)
            oldest_s = time.monotonic() - _IDLE_S
            for other in [k for k, s in self._shares.items() if k != key and s.used_s < oldest_s]:
                self._shares.pop(other).close()
            return self._shares[key]

    def close(self) -> None:
        """Disconnect all."""
        with self._lock:
            while self._shares:
                self._shares.popitem()[1].close()
