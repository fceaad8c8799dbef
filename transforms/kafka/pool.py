"""Readers that are kept between bundles, with what they have fetched ahead."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from group_scores.transforms.kafka.address import KafkaAddress
from group_scores.transforms.kafka.reader import KafkaReader

_MOST_IDLE = 8  # each holds a connection, a thread and up to two fetches
_LONGEST_IDLE_S = 60.0


class ReaderPool:
    """The readers of one topic in this process, for any thread; DoFn instances come and go.

    A reader is lent to one user at a time. It goes, by preference, to who reads on where it stands.
    """

    def __init__(self, address: KafkaAddress) -> None:
        self._address = address
        self._lock = threading.Lock()
        self._idle: list[KafkaReader] = []  # the one that is idle longest comes first
        self._lag: dict[int, int] = {}
        self._closed = False

    @contextmanager
    def lease(
        self, partition: int, start: int, until: int, retry_s: float
    ) -> Iterator[KafkaReader]:
        """Lend a reader that stands at `start` of `partition` and reads up to `until`.

        Raises what `KafkaReader` raises.
        """
        reader = self._take(partition, start)
        reader.retry_s = retry_s
        try:
            reader.assign({partition: start}, {partition: until})
            yield reader
        finally:
            self._put(reader)

    def note_lag(self, offsets: Mapping[int, int]) -> int:
        """Note how far behind partitions are; return the sum over all that are read here."""
        with self._lock:
            self._lag.update(offsets)
            return sum(self._lag.values())

    def close(self) -> None:
        """Close the readers; those that are lent are closed when they come back."""
        with self._lock:
            readers, self._idle, self._closed = self._idle, [], True
        for reader in readers:
            reader.close()

    def _take(self, partition: int, start: int) -> KafkaReader:
        with self._lock:
            fitting = [r for r in self._idle if r.stands_at(partition, start)]
            useless = [r for r in self._idle if r.finished]  # its connection is not
            crowded = self._idle[:1] if len(self._idle) >= _MOST_IDLE else []
            for reader in fitting + useless + crowded:
                self._idle.remove(reader)
                return reader
        return KafkaReader(self._address)

    def _put(self, reader: KafkaReader) -> None:
        reader.idle_since = time.monotonic()
        oldest = reader.idle_since - _LONGEST_IDLE_S
        with self._lock:
            self._idle.append(reader)
            useless = [
                r for r in self._idle if self._closed or r.broken or r.idle_since < oldest
            ] or self._idle[:-_MOST_IDLE]
            self._idle = [r for r in self._idle if r not in useless]
        for one in useless:
            one.close()
