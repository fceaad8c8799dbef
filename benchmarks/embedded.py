"""The embedded run: a file into SQLite, the pipeline against a plain loop without Beam.

As in `kafka_to_cassandra`: the same rules, store, functions and batches, a new file of SQLite for
each round, the start-up apart. The store's share is small here, and so Beam's is large.
"""

from __future__ import annotations

from typing import Any

from benchmarks.bench import Bench, Figures
from benchmarks.figures import Measured, median_ratio, summary
from benchmarks.kafka_to_cassandra import KINDS, parts_of, parts_table, speed_table
from benchmarks.worker import Work

AIM = 0.5


def measure(bench: Bench) -> Figures:
    """Return the figures of both, their ratio, and the parts of each."""
    source = str(bench.events_file(bench.events))

    def run(kind: Any, *, stages: bool = False) -> Measured:
        with bench.database() as store:
            return bench.run(
                Work(
                    kind=kind,
                    source=source,
                    store=store,
                    dead_letters=bench.dead_letters,
                    stages=stages,
                )
            )

    rounds = bench.alternate({kind: lambda kind=kind: run(kind) for kind in KINDS}, warm_up=False)
    bench.say("both once more, with clocks around the stages")
    parts = {kind: parts_of(run(kind, stages=True)) for kind in KINDS}
    return {
        "ratio": round(median_ratio(rounds["pipeline"], rounds["loop"], lambda m: m.rate), 3),
        "cpu_ratio": round(median_ratio(rounds["pipeline"], rounds["loop"], lambda m: m.cpu_ms), 3),
        "aim": AIM,
        **{kind: summary(rounds[kind]) for kind in KINDS},
        "parts": parts,
    }


def show(figures: Figures) -> list[Any]:
    """Return the tables."""
    return [speed_table("File to SQLite", figures), parts_table(figures["parts"])]
