"""How far a run is, for the line on a terminal: a counter of events that other processes can read.

Beam's own counters reach the launcher only when a local run is over. Each worker process on this
machine keeps its count in a file of its own; the launcher adds the files up.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass

_EVERY = 200
_lock = threading.Lock()
_counts: dict[str, int] = {}
_written: dict[str, int] = {}


@dataclass(frozen=True)
class Progress:
    """Where the workers of a run write how many events they have read; None writes nothing."""

    folder: str | None = None

    def add(self, events: int) -> None:
        """Count events of this process."""
        if self.folder is None:
            return
        with _lock:
            count = _counts[self.folder] = _counts.get(self.folder, 0) + events
        if count - _written.get(self.folder, 0) >= _EVERY:
            self.write()

    def write(self) -> None:
        """Write this process's count to its file."""
        if self.folder is None:
            return
        # The folder may be gone: the launcher was interrupted, or is on another machine.
        with _lock, contextlib.suppress(OSError):
            count = _written[self.folder] = _counts.get(self.folder, 0)
            path = os.path.join(self.folder, str(os.getpid()))
            file = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
            try:
                # All digits at once and never fewer: the reader does not see half a number.
                os.pwrite(file, b"%020d" % count, 0)
            finally:
                os.close(file)

    def read(self) -> int:
        """Return the events of all processes so far."""
        if self.folder is None:
            return 0
        total = 0
        with contextlib.suppress(OSError):
            for entry in os.scandir(self.folder):
                with open(entry.path, "rb") as file:
                    total += int(file.read() or 0)
        return total


@contextlib.contextmanager
def temporary_progress() -> Iterator[Progress]:
    """Give a run a folder of its own to count in, for the length of a `with` block."""
    folder = tempfile.mkdtemp(prefix="group-scores-")
    try:
        yield Progress(folder)
    finally:
        # Under its new name no worker that is still at it puts a file into what is being removed.
        over = f"{folder}-over"
        os.rename(folder, over)
        shutil.rmtree(over, ignore_errors=True)
