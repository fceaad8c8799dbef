"""The peak of the pipeline's memory with ten times the events.

A process for each run; its peak is the greatest resident set that the kernel saw (VmHWM), servers
not counted. It should be flat: the local runner keeps in memory what crosses the boundary of a
stage, and nothing that grows with the events may cross one.
"""

from __future__ import annotations

from typing import Any

from benchmarks.bench import Bench, Figures, table_of
from benchmarks.figures import Measured
from benchmarks.worker import Work

AIM = 1.2
_TIMES = 10
_NAMES = {"file": "file to SQLite", "kafka": "Kafka to Cassandra"}


def measure(bench: Bench) -> Figures:
    """Return the peaks in MB and their ratio, for either source and store."""
    figures: Figures = {"aim": AIM}
    for name, run in (("file", _from_file), ("kafka", _from_kafka)):
        sizes = (bench.events, _TIMES * bench.events)
        peaks = {}
        for events in sizes:
            bench.say(f"{_NAMES[name]}, {events:,} events")
            peaks[str(events)] = round(run(bench, events).peak_mb, 1)
        few, many = peaks.values()
        figures[name] = {"peak_mb": peaks, "ratio": round(many / few, 3)}
    return figures


def _from_file(bench: Bench, events: int) -> Measured:
    path = bench.events_file(events)
    with bench.database() as store:
        work = Work(kind="pipeline", source=str(path), store=store, dead_letters=bench.dead_letters)
        measured = bench.run(work)
    path.unlink()
    return measured


def _from_kafka(bench: Bench, events: int) -> Measured:
    source = bench.events_topic(events)
    with bench.tables() as store:
        work = Work(kind="pipeline", source=source, store=store, dead_letters=bench.dead_letters)
        return bench.run(work)


def show(figures: Figures) -> list[Any]:
    """Return the table."""
    sizes = list(figures["file"]["peak_mb"])
    columns = ["Memory, peak MB", *(f"{int(size):,} events" for size in sizes)]
    table = table_of("", [*columns, f"ratio (aim: {figures['aim']})"])
    for name, label in _NAMES.items():
        peaks = figures[name]["peak_mb"].values()
        table.add_row(label, *(f"{peak:.0f}" for peak in peaks), f"{figures[name]['ratio']:.2f}")
    return [table]
