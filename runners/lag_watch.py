"""Watch an endless run from outside: is it read at all?

A worker that never started counts nothing, and its cluster says that the job runs. What Kafka knows
of the group tells the truth.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Gauge, start_http_server

from group_scores.stores.errors import AddressError, GroupScoresError
from group_scores.transforms.kafka.address import KafkaAddress
from group_scores.transforms.kafka.topic import KafkaTopic

log = logging.getLogger(__name__)

EVERY_S = 5.0
STALLED_S = 30.0
"""Without a commit for so long while records wait, something is wrong."""
START_S = 60.0
"""And at the start for so long: a job server, a job and its workers come up first."""


class Stall:
    """Tells whether a group that has records to read goes on reading them."""

    def __init__(self, after_s: float = STALLED_S, start_s: float = START_S) -> None:
        self._after_s = after_s
        self._start_s = start_s
        self._committed: int | None = None
        self._moved_s = 0.0

    def look(self, committed: int, lag: int, now_s: float) -> bool:
        """Take what was committed in all, and how many records wait; tell if it stands still."""
        if self._committed is None:  # a job takes its time to start
            self._committed, self._moved_s = committed, now_s + self._start_s - self._after_s
        elif lag <= 0 or committed != self._committed:
            self._committed, self._moved_s = committed, max(now_s, self._moved_s)
        return now_s - self._moved_s >= self._after_s


class LagWatch:
    """Asks Kafka every few seconds, in a thread of its own, and says it where nothing is read.

    The gauges are in `registry`. A Kafka that does not answer is the run's own trouble: it is
    asked again.
    """

    def __init__(
        self, address: KafkaAddress, stall: Stall | None = None, *, every_s: float = EVERY_S
    ) -> None:
        self.registry = CollectorRegistry()
        self._address = address
        self._every_s = every_s
        self._stall = stall or Stall()
        self._stop = threading.Event()
        self._first_ends: dict[int, int] = {}
        self._lag = Gauge(
            "group_scores_lag",
            "Records that the consumer group has not committed yet",
            ("topic", "partition"),
            registry=self.registry,
        )
        self._stalled = Gauge(
            "group_scores_stalled",
            f"1 when nothing was committed for {STALLED_S:g} s while records wait",
            registry=self.registry,
        )
        self._running = Gauge(
            "group_scores_job_running", "1 while the job runs", registry=self.registry
        )

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Look for the length of a `with` block."""
        thread = threading.Thread(target=self._follow, name="lag watch", daemon=True)
        self._running.set(1)
        thread.start()
        try:
            yield
        finally:
            self._running.set(0)
            self._stop.set()

    def _follow(self) -> None:
        told_s = -STALLED_S
        topic = KafkaTopic(self._address, retry_s=0)
        while not self._stop.wait(self._every_s):
            try:
                lags, committed = self.look(topic)
            except GroupScoresError as error:
                log.info("the lag of %s is not known: %s", self._address, error)
                continue
            now_s = time.monotonic()
            stalled = self._stall.look(committed, sum(lags.values()), now_s)
            self._stalled.set(stalled)
            if stalled and now_s - told_s >= STALLED_S:
                told_s = now_s
                log.warning(
                    "nothing was read of %s for some time, and %d records wait: are there "
                    "workers? Look at the job's exceptions and the workers' logs",
                    self._address,
                    sum(lags.values()),
                )
        topic.close()

    def look(self, topic: KafkaTopic) -> tuple[Mapping[int, int], int]:
        """Return how many records wait in each partition, and what was committed in all."""
        partitions = topic.partitions()
        ranges, committed = topic.ranges(partitions), topic.committed(partitions)
        lags = {}
        for partition, known in ranges.items():
            first, end = known[0], known[1]
            first_end = self._first_ends.setdefault(partition, end)
            # A partition that nothing was committed of is read from where the address says.
            start = first if self._address.start in ("committed", "earliest") else first_end
            offset = committed.get(partition)
            lags[partition] = max(0, end - (start if offset is None else max(offset, first)))
            self._lag.labels(self._address.topic, partition).set(lags[partition])
        return lags, sum(offset or 0 for offset in committed.values())


@contextmanager
def metrics_server(listen: str, registry: CollectorRegistry) -> Iterator[None]:
    """Serve the registry to Prometheus on HOST:PORT for the length of a `with` block.

    Raises AddressError where nothing can listen there.
    """
    host, _, port = listen.rpartition(":")
    try:
        server, _thread = start_http_server(int(port), host, registry)
    except (OSError, ValueError, OverflowError):
        raise AddressError(
            f"--metrics-listen {listen}: nothing can listen there; write HOST:PORT, and is the "
            "port free?"
        ) from None
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
