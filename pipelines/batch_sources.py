"""The sources of batch mode: all the attempts that there are, without their events.

Chosen by `sources.parse_source`, which loads this only where it is needed: an embedded run should
not pay for the driver.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import apache_beam as beam

from group_scores.pipelines.sources import Gives, Plain
from group_scores.stores import AddressError, Selection, Store
from group_scores.stores.cassandra.address import CassandraSourceAddress
from group_scores.stores.cassandra.scan_attempts import AttemptsReader, attempts_source
from group_scores.stores.sstable.snapshot import SnapshotAddress
from group_scores.stores.sstable.verify import require_replicas
from group_scores.transforms.cassandra import ReadAttempts
from group_scores.transforms.progress import Progress
from group_scores.transforms.resources import shared
from group_scores.transforms.retry import Retry
from group_scores.transforms.snapshot import ReadSnapshot, SnapshotPreparation


class _Attempts(Plain):
    """What the sources of attempts have in common."""

    @property
    def gives(self) -> Gives:
        """See `Source`."""
        return "attempts"

    @property
    def dead_letter(self) -> str:
        """See `Source`: where a row is told that the store refused."""
        return "dead-letter.jsonl"

    def reads(self, sink: str) -> bool:
        """See `Source`: no events are read."""
        return False


def _not_in_the_future(taken_us: int, store: Store) -> None:
    """What is written with a time to come would hide all that streams write until then."""
    if taken_us > store.now_us():
        raise AddressError(
            f"taken={taken_us // 1000} is in the future; give the epoch ms just before the copy "
            "of the attempts was taken"
        )


@dataclass(frozen=True)
class CassandraSource(_Attempts):
    """The attempts of a cluster, by token ranges, as they are now or as of the address's time."""

    address: CassandraSourceAddress

    @classmethod
    def parse(cls, text: str) -> CassandraSource:
        """Parse the address; raises AddressError."""
        return cls(CassandraSourceAddress.parse(text))

    @property
    def taken_us(self) -> int | None:
        """See `Source`."""
        taken_ms = self.address.taken_ms
        return None if taken_ms is None else taken_ms * 1000

    @property
    def selection(self) -> Selection:
        """See `Source`."""
        return Selection(self.address.course, self.address.batch)

    @property
    def rows_s(self) -> float | None:
        """See `Source`."""
        return self.address.rows_s

    def read(self, retry_s: float, progress: Progress) -> beam.PTransform:
        """See `Source`."""
        return ReadAttempts(self.address, Retry(retry_s), progress)

    def check(self, timeout_s: float) -> int | None:
        """See `Source`: an estimate, from how dense the first of the rows lie."""
        start_s = time.monotonic()
        # The reader stays open for the run, and for the comparison with the store.
        reader = shared(AttemptsReader, attempts_source(self.address))
        return reader.estimated_rows(max(1.0, timeout_s - (time.monotonic() - start_s)))

    def check_store(self, store: Store) -> None:
        """See `Source`: what is read now has to be of the store's own cluster.

        A store without a cluster is a file of somebody's own, which no stream of the cluster's
        writes to.
        """
        if self.taken_us is not None:
            return _not_in_the_future(self.taken_us, store)
        if store.cluster is None:
            return None
        reader = shared(AttemptsReader, attempts_source(self.address))
        if reader.cluster != store.cluster:
            raise AddressError(
                f"{self.address} is another cluster or keyspace than the store, and may hold what "
                "is older; add taken=EPOCH_MS, the time just before it was copied, or name the "
                "same cluster"
            )
        return None


@dataclass(frozen=True)
class SnapshotSource(_Attempts):
    """Snapshots of the attempts table, from any number of nodes, without the cluster.

    `allow_partial` reads them also where they may lack what the cluster has acknowledged.
    """

    address: SnapshotAddress
    allow_partial: bool = False

    @classmethod
    def parse(cls, text: str) -> SnapshotSource:
        """Parse the address; raises AddressError."""
        return cls(SnapshotAddress.parse(text))

    @property
    def taken_us(self) -> int | None:
        """See `Source`: the earliest time at which any of them can have been taken."""
        return shared(SnapshotPreparation, self.address).t_us

    @property
    def selection(self) -> Selection:
        """See `Source`: all of it."""
        return Selection()

    def read(self, retry_s: float, progress: Progress) -> beam.PTransform:
        """See `Source`; there is no server to wait for."""
        return ReadSnapshot(self.address, progress, self.allow_partial)

    def check(self, timeout_s: float) -> int | None:
        """See `Source`: what is wrong and shows in time; the graph's making waits for the rest."""
        ready = shared(SnapshotPreparation, self.address).wait(timeout_s)
        if ready is None:
            return None
        facts = ready[1]
        if not self.allow_partial:
            require_replicas(self.address, facts)
        return sum(fact.rows for fact in facts)

    def check_store(self, store: Store) -> None:
        """See `Source`."""
        if self.taken_us is not None:
            _not_in_the_future(self.taken_us, store)
