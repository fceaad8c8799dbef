"""How far a run is, for the line on a terminal: a counter of events that other processes can read.

Beam's own counters reach the launcher only when a local run is over. Each worker process on this
machine keeps its count in a file of its own; the launcher adds the files up.
"""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass
from pathlib import Path

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
        with _lock:
            count = _counts.get(self.folder, 0)
            _written[self.folder] = count
        # Whole at once: the reader never sees half a number. The folder may be gone: the launcher
        # was interrupted, or the worker is on another machine.
        try:
            path = os.path.join(self.folder, str(os.getpid()))
            with open(path, "w", encoding="ascii") as file:
                file.write(f"{count:020d}")
        except OSError:
            pass

    def read(self) -> int:
        """Return the events of all processes so far."""
        if self.folder is None:
            return 0
        total = 0
        for path in Path(self.folder).iterdir():
            text = path.read_text(encoding="ascii")
            total += int(text) if text else 0
        return total
