"""Batch mode from a snapshot, against the tool that Cassandra has for its files.

`SSTableExport` prints all cells of a file as JSON, here to nowhere: what reading with such a dump
would cost before its first byte is looked at. It is given as many processes as the run has, our
own and a JVM: a file each. Ours are a read of the rows alone, and a whole run: the snapshot found,
compared with its digests and read, the best scores computed and stored in SQLite. The start of the
JVMs is in all of them. Memory is that of two sizes of a run.
"""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.bench import Bench, Figures, table_of
from benchmarks.figures import Measured, median_of, median_ratio, summary
from benchmarks.scan import write_attempts
from benchmarks.worker import Work

AIMS = {"snapshot_run": 1.25}
MEMORY_AIM = 1.2
_TIMES = 5
_ROUNDS = 3
_KINDS = {
    "export": "SSTableExport, a process a file",
    "snapshot_rows": "the rows alone",
    "snapshot_run": "a whole run",
}


def measure(bench: Bench) -> Figures:
    """Return the figures of the three, the ratios of wall times to the tool's, and the peaks."""
    small, large = _taken(bench, bench.events), _taken(bench, _TIMES * bench.events)

    def run(kind: Any, folder: Path = large) -> Measured:
        with bench.database() as store:
            return bench.run(
                Work(
                    kind=kind,
                    source=f"snapshot:{folder}?rf=1&nodes=1",
                    store=store,
                    dead_letters=bench.dead_letters,
                )
            )

    rounds = bench.alternate(
        {kind: lambda kind=kind: run(kind) for kind in _KINDS},
        rounds=min(_ROUNDS, bench.rounds),
        warm_up=False,
    )
    few = run("snapshot_run", small)
    many = rounds["snapshot_run"]
    return {
        **{
            kind: summary(found)
            | {
                "seconds": round(median_of(found, lambda m: m.seconds), 2),
                "children_peak_mb": round(median_of(found, lambda m: m.children_peak_mb), 1),
            }
            for kind, found in rounds.items()
        },
        "ratios": {
            kind: round(median_ratio(rounds[kind], rounds["export"], lambda m: m.seconds), 3)
            for kind in _KINDS
        },
        "memory": {
            "events": few.events,
            "peak_mb": round(few.peak_mb, 1),
            "children_peak_mb": round(few.children_peak_mb, 1),
            "ratio": round(median_of(many, lambda m: m.peak_mb) / few.peak_mb, 3),
        },
    }


def _taken(bench: Bench, attempts: int) -> Path:
    """Write attempts, in two files, and return a copy of their snapshot."""
    cassandra = bench.servers.cassandra
    with bench.tables() as store:
        keyspace = store.rpartition("/")[2]
        bench.say(f"writing {attempts:,} attempts")
        for first, last in ((0, attempts // 2), (attempts // 2, attempts)):
            write_attempts(store, first, last)
            cassandra.nodetool("flush", keyspace, "assessment_aggregator")
        cassandra.nodetool("snapshot", "-t", "benchmark", keyspace)
        (taken,) = cassandra.data.glob(f"{keyspace}/assessment_aggregator-*/snapshots/benchmark")
        copy = bench.folder / f"snapshot-{attempts}" / taken.parents[1].name
        copy.mkdir(parents=True)
        for path in taken.iterdir():
            (copy / path.name).hardlink_to(path)
    return copy


def ready(work: Work) -> Callable[[], int]:
    """Return the work, ready to start: only Python's own imports are done."""
    if work.kind == "export":
        return lambda: _export(Path(work.source.partition(":")[2].partition("?")[0]))
    if work.kind == "snapshot_rows":
        return _rows(work)
    return _run(work)


def _export(folder: Path) -> int:
    from group_scores.stores.sstable.jvm import command

    with tempfile.TemporaryDirectory() as temporary:
        tools = []
        for number, path in enumerate(sorted(folder.glob("*-Data.db"))):
            own = Path(temporary) / str(number)
            own.mkdir()
            words = command(own, "org.apache.cassandra.tools.SSTableExport", "-l", str(path))
            tools.append(subprocess.Popen(words, stdout=subprocess.DEVNULL))
        if sum(tool.wait() for tool in tools):
            raise RuntimeError("SSTableExport failed")
    return int(folder.parent.name.rpartition("-")[2])


def _rows(work: Work) -> Callable[[], int]:
    from group_scores.pipelines.sources import parse_source
    from group_scores.stores.sstable.reader import SnapshotReader
    from group_scores.transforms.resources import close_shared, shared
    from group_scores.transforms.snapshot import prepared

    source: Any = parse_source(work.source)

    def run() -> int:
        reader = shared(SnapshotReader, prepared(source.address)[0])
        rows = sum(1 for one in reader.ranges() for _ in reader.read(*one))
        close_shared()
        return rows

    return run


def _run(work: Work) -> Callable[[], int]:
    from benchmarks.worker import _import_runner
    from group_scores.pipelines import Job
    from group_scores.pipelines.sources import parse_source
    from group_scores.runners import launch
    from group_scores.runners.beam_options import pipeline_options
    from group_scores.stores import StoreConfig

    options = pipeline_options([], [])
    _import_runner(options)
    job = Job(parse_source(work.source), StoreConfig(work.store), work.dead_letters)

    def run() -> int:
        launch.check(job)
        return int(launch.run(job, options)["attempts_read"])

    return run


def show(figures: Figures) -> list[Any]:
    """Return the tables."""
    rows, memory = figures["export"]["events"], figures["memory"]
    head = [f"Snapshot, {rows:,} attempts", "s", "attempts/s", "CPU µs/attempt", "peak MB"]
    table = table_of("", [*head, "JVMs' MB", "/ the tool's time (aim)"])
    for kind, label in _KINDS.items():
        one, aim = figures[kind], f" ({AIMS[kind]})" if kind in AIMS else ""
        table.add_row(
            label,
            f"{one['seconds']:.1f}",
            f"{one['events_a_second']:,.0f}",
            f"{1000 * one['cpu_ms_an_event']:.1f}",
            f"{one['peak_mb']:.0f}",
            f"{one['children_peak_mb']:.0f}",
            f"{figures['ratios'][kind]:.2f}{aim}",
        )
    table.add_row(
        f"a run of {memory['events']:,}",
        *("", "", "", f"{memory['peak_mb']:.0f}", f"{memory['children_peak_mb']:.0f}"),
        f"memory of {rows:,} / this {memory['ratio']:.2f} ({MEMORY_AIM})",
    )
    return [table]
