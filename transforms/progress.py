"""How far a run is, for the line on a terminal: counts that other processes can read.

Beam's own counters reach the launcher only when a local run is over. Each worker process on this
machine keeps its counts in a file of its own; the launcher adds the files up.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest

_EVERY = 200
_PARTS = 1_000_000  # of a range: a runner may split it, and each reader has some of them
_lock = threading.Lock()
_counts: dict[str, _Counts] = {}


@dataclass
class _Counts:
    """What this process has counted for one run; `written` are the events in its file."""

    events: int = 0
    parts: int = 0
    ranges: int = 0
    written: int = 0


@dataclass(frozen=True)
class Progress:
    """Where the workers of a run write how much they have read; None writes nothing.

    `ranges_only` is for what is read beside the events, or attempts, that are counted.
    """

    folder: str | None = None
    ranges_only: bool = False

    def add(self, events: int) -> None:
        """Count events of this process."""
        if self.folder is None or self.ranges_only:
            return
        with _lock:
            counts = self._of_process()
            counts.events += events
            due = counts.events - counts.written >= _EVERY
        if due:
            self.write()

    def plan(self, ranges: int) -> None:
        """Say that so many ranges, or files, are to be read; by one process, for all of them."""
        self._count_ranges(0, ranges)

    def add_range(self, fraction: float = 1.0) -> None:
        """Count a range that this process has read, or as much as it has of it."""
        self._count_ranges(round(fraction * _PARTS), 0)

    def _count_ranges(self, parts: int, ranges: int) -> None:
        if self.folder is None:
            return
        with _lock:
            counts = self._of_process()
            counts.parts += parts
            counts.ranges += ranges
        self.write()

    def _of_process(self) -> _Counts:
        assert self.folder is not None
        return _counts.setdefault(self.folder, _Counts())

    def write(self) -> None:
        """Write this process's counts to its file."""
        if self.folder is None:
            return
        # The folder may be gone: the launcher was interrupted, or is on another machine.
        with _lock, contextlib.suppress(OSError):
            counts = self._of_process()
            counts.written = counts.events
            path = os.path.join(self.folder, str(os.getpid()))
            file = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
            try:
                # All digits at once and never fewer: the reader does not see half a number.
                line = b"%020d %020d %020d" % (counts.events, counts.parts, counts.ranges)
                os.pwrite(file, line, 0)
            finally:
                os.close(file)

    def read(self) -> int:
        """Return the events of all processes so far."""
        return self._totals()[0]

    def ranges(self) -> tuple[float, int]:
        """Return how many ranges all processes have read so far, and of how many."""
        _, parts, ranges = self._totals()
        return min(parts / _PARTS, ranges), ranges

    def _totals(self) -> tuple[int, int, int]:
        totals = [0, 0, 0]
        if self.folder is not None:
            with contextlib.suppress(OSError):
                for entry in os.scandir(self.folder):
                    with open(entry.path, "rb") as file:
                        found = map(int, file.read().split())
                    totals = [a + b for a, b in zip_longest(totals, found, fillvalue=0)]
        events, parts, ranges = totals
        return events, parts, ranges


@contextlib.contextmanager
def temporary_progress() -> Iterator[Progress]:
    """Give a run a folder of its own to count in, for the length of a `with` block."""
    folder = tempfile.mkdtemp(prefix="group-scores-")
    try:
        yield Progress(folder)
    finally:
        # Under its new name no worker that is still at it puts a file into what is being removed.
        over = f"{folder}-over"
        with contextlib.suppress(OSError):  # somebody may have cleaned up before
            os.rename(folder, over)
        shutil.rmtree(over, ignore_errors=True)
