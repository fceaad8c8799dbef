"""The snapshots on this machine, merged, with a bounded number of JVMs that are used again."""

from __future__ import annotations

import shutil
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

from group_scores.stores.cassandra.ranges import WHOLE_RING, cut
from group_scores.stores.errors import GroupScoresError
from group_scores.stores.sstable.jvm import FileFacts, Row, SnapshotJvm
from group_scores.stores.sstable.snapshot import LocalSnapshot, link

TokenRange = tuple[int, int]
_RANGE_BYTES = 32 << 20
_MOST_RANGES = 1_024
_MOST_JVMS = 2


class SnapshotReader:
    """Reads token ranges of the snapshots, also from several threads at once."""

    def __init__(self, snapshot: LocalSnapshot) -> None:
        self._snapshot = snapshot
        self._below = Path(tempfile.mkdtemp(prefix="group-scores-snapshot-"))
        try:
            self._links = link(snapshot, self._below)
        except BaseException:
            shutil.rmtree(self._below, ignore_errors=True)
            raise
        self.t_us = snapshot.t_ms * 1000
        self._lock = threading.Lock()
        self._free: list[SnapshotJvm] = []
        self._all: set[SnapshotJvm] = set()
        self._closed = False
        self._turns = threading.Semaphore(_MOST_JVMS)

    def ranges(self) -> list[TokenRange]:
        """Return the ring in parts of about equal size."""
        return split_ring(-(-self._snapshot.bytes // _RANGE_BYTES))

    def describe(self) -> list[FileFacts]:
        """Open every file; return what each tells, under the name that the address has for it.

        Raises AddressError for a file that is wrong, GroupScoresError for what else fails.
        """
        with self._turns:
            jvm = self._take()
            try:
                facts = jvm.describe()
            except BaseException:
                self._drop(jvm)
                raise
            self._give_back(jvm)
        return [fact._replace(path=self._named(Path(fact.path))) for fact in facts]

    def read(self, start: int, end: int) -> Iterator[Row]:
        """Yield the rows of the token range as the cluster would have answered at `t_us`."""
        with self._turns:
            jvm = self._take()
            try:
                now_s = self._snapshot.t_ms // 1000
                for rows in jvm.read(start, end, now_s, now_s - self._snapshot.gc_grace_s):
                    yield from rows
            except BaseException:
                self._drop(jvm)  # what it still has to say belongs to nobody
                raise
            self._give_back(jvm)

    def close(self) -> None:
        """End the JVMs, also those at work, and remove the links."""
        with self._lock:
            self._closed = True
            jvms = list(self._all)
        for jvm in jvms:
            self._drop(jvm)
        shutil.rmtree(self._below, ignore_errors=True)

    def _named(self, link: Path) -> str:
        number = int(link.parents[2].name)  # …/NUMBER/snapshot/TABLE-ID/FILE
        return f"{self._snapshot.folders[number].name.rstrip('/')}/{link.name}"

    def _take(self) -> SnapshotJvm:
        with self._lock:
            if self._closed:
                raise GroupScoresError("the reader of the snapshot was closed")
            if self._free:
                return self._free.pop()
        jvm = SnapshotJvm(self._links, self._snapshot.dropped)  # the first may fetch its jars
        with self._lock:
            if not self._closed:
                self._all.add(jvm)
                return jvm
        jvm.close()
        return self._take()

    def _give_back(self, jvm: SnapshotJvm) -> None:
        with self._lock:
            self._free.append(jvm)

    def _drop(self, jvm: SnapshotJvm) -> None:
        with self._lock:
            self._all.discard(jvm)
        jvm.close()


def split_ring(parts: int) -> list[TokenRange]:
    """Cut the ring into ranges (start, end]: tokens are hashes, so equal ones hold as much."""
    return [(one.start, one.end) for one in cut(WHOLE_RING, min(parts, _MOST_RANGES))]
