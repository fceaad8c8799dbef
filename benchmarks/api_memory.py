"""The memory of the API's server over 100,000 requests: it should stay level.

The same requests as those of `api`, five for each event of the other benchmarks, as fast as they
are answered.
"""

from __future__ import annotations

import statistics
import threading
from typing import Any

from benchmarks.api import Server, filled, served
from benchmarks.api_load import run_load
from benchmarks.bench import Bench, Figures, table_of

AIM_GROWTH = 1.05
_TIMES = 5
_NOTE_S = 1.0
_PART = 10  # the first tenth warms up; the second and the last are compared


def measure(bench: Bench) -> Figures:
    """Return the memory in the second and in the last tenth of the run, and the most."""
    count = _TIMES * bench.events
    with filled(bench) as (store, groups), served(bench.folder, store, groups) as server:
        bench.say(f"{count:,} requests")
        with _Notes(server) as notes:
            answered = run_load(server.load(count))
    part = max(1, len(notes.mb) // _PART)
    second = statistics.median(notes.mb[part : 2 * part] or notes.mb)
    last = statistics.median(notes.mb[-part:])
    return {
        "requests": count,
        "requests_a_second": round(count / answered.seconds, 1),
        "second_tenth_mb": round(second, 1),
        "last_tenth_mb": round(last, 1),
        "greatest_mb": round(max(notes.mb), 1),
        "growth": round(last / second, 3),
        "mb_each_second": notes.mb,
    }


class _Notes:
    """Notes every second how much memory the server holds."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self.mb: list[float] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)

    def __enter__(self) -> _Notes:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _follow(self) -> None:
        while True:
            self.mb.append(round(self._server.process.memory_info().rss / 2**20, 1))
            if self._over.wait(_NOTE_S):
                return


def show(figures: Figures) -> list[Any]:
    """Return the table."""
    table = table_of(
        "", ["API, MB of the server", "second tenth", "last tenth", "most", "growth (aim)"]
    )
    table.add_row(
        f"{figures['requests']:,} requests, {figures['requests_a_second']:.0f}/s",
        *(f"{figures[name]:.0f}" for name in ("second_tenth_mb", "last_tenth_mb", "greatest_mb")),
        f"{figures['growth']:.3f} ({AIM_GROWTH})",
    )
    return [table]
