"""Reading a topic and nothing else: the plain reader, and Beam's wrapper around it.

`through Beam` is ReadFromKafka on the local runner into a step that counts: what an element costs
at least, whatever is done with it. Without `crc32c` the client checks every checksum in Python;
that is what the package is a dependency for (fewer records there: they take long).
"""

from __future__ import annotations

from typing import Any

from benchmarks.bench import Bench, Figures, table_of
from benchmarks.figures import Measured, median_ratio, summary
from benchmarks.worker import Work

_FEWER = 10


def measure(bench: Bench) -> Figures:
    """Return the figures of each way to read, and how they compare."""

    def run(kind: Any, events: int, *, crc32c: bool = True) -> Measured:
        source = bench.events_topic(events)
        return bench.run(Work(kind=kind, source=source, crc32c=crc32c))

    fewer = max(1, bench.events // _FEWER)
    ways = {
        "plain": lambda: run("read_plain", bench.events),
        "beam": lambda: run("read_beam", bench.events),
        "plain_without_crc32c": lambda: run("read_plain", fewer, crc32c=False),
    }
    rounds = bench.alternate(ways)
    return {
        **{name: summary(found) for name, found in rounds.items()},
        "ratio": round(median_ratio(rounds["beam"], rounds["plain"], lambda m: m.rate), 3),
        "beam_us_a_record": round(1000 * (_cpu_ms(rounds["beam"]) - _cpu_ms(rounds["plain"])), 1),
    }


def _cpu_ms(rounds: list[Measured]) -> float:
    return float(summary(rounds)["cpu_ms_an_event"])


def show(figures: Figures) -> list[Any]:
    """Return the table."""
    table = table_of("", ["Kafka, reading alone", "records/s", "CPU µs/record"])
    for name, label in (
        ("plain", "plain reader"),
        ("beam", "through Beam"),
        ("plain_without_crc32c", "plain reader, without crc32c"),
    ):
        one = figures[name]
        rate, cpu_us = one["events_a_second"], 1000 * one["cpu_ms_an_event"]
        table.add_row(label, f"{rate:,.0f}", f"{cpu_us:,.0f}")
    return [table]
