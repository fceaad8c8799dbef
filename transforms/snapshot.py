"""Read the attempts from snapshots of their table: token ranges of all files, merged.

A work item is a token range of every file, not a file (as a dump tool would have it): the files
are merged by token anyway, so each row comes out finished, no shuffle brings its versions together
and the memory is flat. JVMs are kept by the process, one request at a time each.
"""

from __future__ import annotations

import itertools
import shutil
import tempfile
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import apache_beam as beam
from apache_beam.metrics import Metrics

from group_scores.scores import ActivityKey, StoredAttempt
from group_scores.stores.sstable import snapshot as files
from group_scores.stores.sstable.jvm import Row, SnapshotJvm
from group_scores.stores.sstable.snapshot import SnapshotAddress
from group_scores.transforms.batching import NAMESPACE
from group_scores.transforms.elements import AttemptsPage, LearnerAttempts
from group_scores.transforms.progress import Progress
from group_scores.transforms.resources import shared

TokenRange = tuple[int, int]
_RANGE_BYTES = 32 << 20
_MOST_RANGES = 1_024
_MOST_JVMS = 2
_PAGE_LEARNERS = 200
_PAGE_ROWS = 5_000
_read_rows = Metrics.counter(NAMESPACE, "attempts_read")
_read_ranges = Metrics.counter(NAMESPACE, "ranges_read")


class SnapshotReader:
    """The snapshots of an address as this process reads them, with a bounded number of JVMs."""

    def __init__(self, address: SnapshotAddress) -> None:
        self._below = Path(tempfile.mkdtemp(prefix="group-scores-snapshot-"))
        try:
            self._snapshot = files.find(address, self._below / "copies")
            self._links = files.link(self._snapshot, self._below / "links")
        except BaseException:
            shutil.rmtree(self._below, ignore_errors=True)
            raise
        self.t_us = self._snapshot.t_ms * 1000
        self._free: list[SnapshotJvm] = []
        self._turns = threading.Semaphore(_MOST_JVMS)

    def ranges(self) -> list[TokenRange]:
        """Return the ring in parts of about equal size."""
        return split_ring(-(-self._snapshot.bytes // _RANGE_BYTES))

    def read(self, start: int, end: int) -> Iterator[Row]:
        """Yield the rows of the token range as the cluster would have answered at `t_us`."""
        with self._turns:
            jvm = self._free.pop() if self._free else SnapshotJvm(self._links)
            try:
                for rows in jvm.read(start, end, self._snapshot.t_ms // 1000):
                    yield from rows
            except BaseException:
                jvm.close()  # what it still has to say belongs to nobody
                raise
            self._free.append(jvm)

    def close(self) -> None:
        """End the JVMs and remove the links and copies."""
        while self._free:
            self._free.pop().close()
        shutil.rmtree(self._below, ignore_errors=True)


def split_ring(parts: int) -> list[TokenRange]:
    """Cut the ring into ranges (start, end]: tokens are hashes, so equal ones hold as much."""
    parts = max(1, min(parts, _MOST_RANGES))
    low, high = -(2**63), 2**63 - 1
    cuts = [low + (high - low) * n // parts for n in range(parts)] + [high]
    return list(itertools.pairwise(cuts))


def pages(rows: Iterable[Row], t_us: int) -> Iterator[AttemptsPage]:
    """Gather rows into pages of whole learners; a learner's rows follow one another."""
    page: list[LearnerAttempts] = []
    in_page = 0
    key: tuple[str, str, str] | None = None
    attempts: list[StoredAttempt] = []
    for user, course, batch, content, attempt, at_ms, score, max_score in rows:
        if (user, course, batch) != key:
            if key is not None:
                page.append(_learner(key, attempts))
                in_page += len(attempts)
                if len(page) >= _PAGE_LEARNERS or in_page >= _PAGE_ROWS:
                    yield AttemptsPage(t_us, page)
                    page, in_page = [], 0
            key, attempts = (user, course, batch), []
        attempts.append(StoredAttempt(content, attempt, at_ms, score, max_score))
    if key is not None:
        yield AttemptsPage(t_us, [*page, _learner(key, attempts)])


def _learner(key: tuple[str, str, str], attempts: list[StoredAttempt]) -> LearnerAttempts:
    user, course, batch = key
    return LearnerAttempts(ActivityKey(course, user, batch), attempts)


@dataclass
class ReadSnapshot(beam.PTransform):
    """Read the attempts of all snapshots of an address, merged as a read of the cluster does."""

    address: SnapshotAddress
    progress: Progress = field(default_factory=Progress)

    def expand(self, root: beam.pvalue.PBegin) -> beam.PCollection:
        """Nothing -> AttemptsPage."""
        ranges = shared(SnapshotReader, self.address).ranges()
        self.progress.plan(len(ranges))
        read = beam.ParDo(_ReadRange(self.address, self.progress))
        return (
            root | "Ranges" >> beam.Create(ranges) | "Read" >> read.with_output_types(AttemptsPage)
        )


class _ReadRange(beam.DoFn):
    def __init__(self, address: SnapshotAddress, progress: Progress) -> None:
        self._address = address
        self._progress = progress

    def process(self, element: TokenRange) -> Iterator[AttemptsPage]:
        reader = shared(SnapshotReader, self._address)
        for page in pages(reader.read(*element), reader.t_us):
            rows = sum(len(learner.attempts) for learner in page.learners)
            _read_rows.inc(rows)
            self._progress.add(rows)
            yield page
        _read_ranges.inc()
        self._progress.add_range()
