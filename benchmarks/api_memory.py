"""The memory of the API's server over 100,000 requests: it should stay level.

The same requests as those of `api`, five for each event of the other benchmarks, as fast as they
are answered.
"""

from __future__ import annotations

import statistics
from typing import Any

from benchmarks.api import filled, served
from benchmarks.api_load import run_load
from benchmarks.bench import Bench, Figures, every, table_of

AIM_GROWTH = 1.05
_TIMES = 5
_NOTE_S = 1.0
_PART = 10  # the first tenth warms up; the second and the last are compared


def measure(bench: Bench) -> Figures:
    """Return the memory in the second and in the last tenth of the run, and the most."""
    count = _TIMES * bench.events
    with filled(bench) as (store, groups), served(bench.folder, store, groups) as server:
        bench.say(f"{count:,} requests")
        mb: list[float] = []

        def note() -> None:
            mb.append(round(server.process.memory_info().rss / 2**20, 1))

        note()
        with every(_NOTE_S, note):
            answered = run_load(server.load(count))
    part = max(1, len(mb) // _PART)
    second = statistics.median(mb[part : 2 * part] or mb)
    last = statistics.median(mb[-part:])
    return {
        "requests": count,
        "requests_a_second": round(count / answered.seconds, 1),
        "second_tenth_mb": round(second, 1),
        "last_tenth_mb": round(last, 1),
        "greatest_mb": round(max(mb), 1),
        "growth": round(last / second, 3),
        "mb_each_second": mb,
    }


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
