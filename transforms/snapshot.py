"""Read the attempts from snapshots of their table: token ranges of all files, merged.

A work item is a token range of every file, not a file (as a dump tool would have it): the files
are merged by token anyway, so each row comes out finished, no shuffle brings its versions together
and the memory is flat. JVMs are kept by the process, one request at a time each.
"""

from __future__ import annotations

import shutil
import tempfile
import threading
from collections.abc import Iterable, Iterator
from concurrent import futures
from dataclasses import dataclass, field
from pathlib import Path

import apache_beam as beam
from apache_beam.metrics import Metrics

from group_scores.scores import ActivityKey, StoredAttempt
from group_scores.stores.sstable.jvm import FileFacts, Row
from group_scores.stores.sstable.reader import SnapshotReader, TokenRange
from group_scores.stores.sstable.snapshot import LocalSnapshot, SnapshotAddress, fetch, find
from group_scores.stores.sstable.verify import require_replicas, verify
from group_scores.transforms.elements import AttemptsPage, LearnerAttempts
from group_scores.transforms.metrics import NAMESPACE
from group_scores.transforms.progress import Progress
from group_scores.transforms.resources import shared

_PAGE_LEARNERS = 200
_PAGE_ROWS = 5_000
_GIVE_UP_S = 5.0
_read_rows = Metrics.counter(NAMESPACE, "attempts_read")
_read_ranges = Metrics.counter(NAMESPACE, "ranges_read")
Prepared = tuple[LocalSnapshot, list[FileFacts]]


class SnapshotPreparation:
    """The snapshots of an address, found at once, and made ready to read while others wait.

    Remote files are copied, all data is compared with its digests, every file is opened: once,
    for the check of a run, for its graph and for the workers of this process, however long it
    takes. Raises AddressError.
    """

    def __init__(self, address: SnapshotAddress) -> None:
        found = find(address)
        self.t_us = found.t_ms * 1000
        self._below = Path(tempfile.mkdtemp(prefix="group-scores-snapshot-"))
        self._stop = threading.Event()
        self._outcome: futures.Future[Prepared] = futures.Future()

        def prepare() -> None:
            try:
                local = fetch(found, self._below / "copies", self._stop)
                verify(local, self._stop)
                facts = shared(SnapshotReader, local).describe()
                self._outcome.set_result((local, facts))
            except BaseException as error:
                self._outcome.set_exception(error)

        # A daemon: an object store that is silent cannot be interrupted.
        threading.Thread(target=prepare, name="snapshot", daemon=True).start()

    def wait(self, timeout_s: float | None = None) -> Prepared | None:
        """Return the local snapshot and what its files tell; None when the time is over first.

        Raises AddressError for files that are wrong, GroupScoresError for what else fails.
        """
        futures.wait([self._outcome], timeout_s)
        return self._outcome.result() if self._outcome.done() else None

    def close(self) -> None:
        """Give up what is under way and remove the copies."""
        self._stop.set()
        futures.wait([self._outcome], _GIVE_UP_S)
        shutil.rmtree(self._below, ignore_errors=True)


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
    """Read the attempts of all snapshots of an address, merged as a read of the cluster does.

    Snapshots that may lack what the cluster has acknowledged are refused when the graph is made,
    unless `allow_partial`. On one machine, remote files are copied once for all its workers.
    """

    address: SnapshotAddress
    progress: Progress = field(default_factory=Progress)
    allow_partial: bool = False

    def expand(self, root: beam.pvalue.PBegin) -> beam.PCollection:
        """Nothing -> AttemptsPage."""
        local, facts = prepared(self.address)
        if not self.allow_partial:
            require_replicas(self.address, facts)
        ranges = open_reader((self.address, local)).ranges()
        self.progress.plan(len(ranges))
        read = beam.ParDo(_ReadRange(self.address, local, self.progress))
        return (
            root | "Ranges" >> beam.Create(ranges) | "Read" >> read.with_output_types(AttemptsPage)
        )


def prepared(address: SnapshotAddress) -> Prepared:
    """Return the snapshots of an address when they are ready; raises as `wait` says."""
    found = shared(SnapshotPreparation, address).wait()
    assert found is not None
    return found


def open_reader(snapshot: tuple[SnapshotAddress, LocalSnapshot]) -> SnapshotReader:
    """Return this process's reader; on a machine that has not the files, of its own copy."""
    address, local = snapshot
    return shared(SnapshotReader, local if local.is_here else prepared(address)[0])


class _ReadRange(beam.DoFn):
    def __init__(self, address: SnapshotAddress, local: LocalSnapshot, progress: Progress) -> None:
        self._snapshot = (address, local)
        self._progress = progress

    def process(self, element: TokenRange) -> Iterator[AttemptsPage]:
        reader = open_reader(self._snapshot)
        for page in pages(reader.read(*element), reader.t_us):
            rows = sum(len(learner.attempts) for learner in page.learners)
            _read_rows.inc(rows)
            self._progress.add(rows)
            yield page
        _read_ranges.inc()
        self._progress.add_range()
