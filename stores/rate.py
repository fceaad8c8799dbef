"""Hold a process's readers back to so many rows a second."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


class RowRate:
    """A token bucket, shared by the threads of a process.

    In any t seconds no more than `rows_s` x t rows are asked for, and the rows of one request.
    """

    def __init__(
        self,
        rows_s: float,
        *,
        clock_s: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._rows_s = rows_s
        self._clock_s = clock_s
        self._sleep = sleep
        self._lock = threading.Lock()
        self._free_s = clock_s()  # when the next request may be sent

    def take(self, rows: int) -> None:
        """Wait until this many rows may be asked for."""
        with self._lock:
            now_s = self._clock_s()
            start_s = max(now_s, self._free_s)
            self._free_s = start_s + rows / self._rows_s
        if start_s > now_s:
            self._sleep(start_s - now_s)

    def give_back(self, rows: int) -> None:
        """Take back what was asked for and did not come."""
        with self._lock:
            self._free_s -= rows / self._rows_s
