"""The report: a whole table of aggregates as files, against a bare scan of the same rows.

The bare scan asks for the same columns of the same ranges of tokens with the same driver, page by
page, the next one under way while one is counted, and counts rows. The report makes a row of each,
sorts them by course batch and learner outside of memory, and writes a file for each course batch.
With ten times as many rows its memory should not grow; and all of them in one course batch, which
is one file, should need no more than in many.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.bench import Bench, Figures, table_of
from benchmarks.figures import Measured, median_ratio, summary
from benchmarks.scan import plain_loop
from benchmarks.worker import Work
from group_scores.scores import ActivityAgg, ActivityKey
from group_scores.stores import Selection, StoreConfig, open_store
from group_scores.transforms.collector import settle

FORMATS = ("csv", "parquet", "html")
KINDS = ("report_scan", *(f"report_{name}" for name in FORMATS))
AIM_GROWTH = 1.2
_TIMES = 5
_MANY = 10
_COURSES = 50
_ASSESSMENTS = 5
_AT_ONCE = 2_000
_T_US = 1_760_000_000_000_000


def measure(bench: Bench) -> Figures:
    """Return the figures for either number of rows, and for all of them in one course batch."""
    few, many = _TIMES * bench.events, _MANY * _TIMES * bench.events
    return {
        "few": _measure(bench, few, _COURSES, bench.rounds),
        "many": _measure(bench, many, _COURSES, 1),
        "one course batch": _measure(bench, many, 1, 1),
    }


def _measure(bench: Bench, rows: int, courses: int, rounds: int) -> Figures:
    with bench.tables() as store:
        bench.say(f"writing {rows:,} rows")
        write_rows(store, rows, courses)

        def run(kind: Any) -> Measured:
            work = Work(
                kind=kind,
                source=store,
                store=store,
                dead_letters=bench.dead_letters,
                servers=bench.server_pids(),
            )
            return bench.run(work)

        found = bench.alternate(
            {kind: lambda kind=kind: run(kind) for kind in KINDS}, rounds=rounds, warm_up=rounds > 1
        )
    return {
        "rows": rows,
        **{kind: summary(measured) for kind, measured in found.items()},
        "ratios": {
            kind: round(median_ratio(found[kind], found["report_scan"], lambda m: m.rate), 3)
            for kind in KINDS[1:]
        },
    }


def write_rows(address: str, rows: int, courses: int) -> None:
    """Write the rows of so many learners in so many courses, with five assessments each."""
    store = open_store(StoreConfig(address))
    try:
        for start in range(0, rows, _AT_ONCE):
            updates = [_update(n, courses) for n in range(start, min(start + _AT_ONCE, rows))]
            if any(store.write_aggregates(updates)):
                raise RuntimeError("the rows could not be written")
    finally:
        store.close()


def _update(number: int, courses: int) -> ActivityAgg:
    course = f"do_{number % courses}"
    metrics: dict[str, float] = {}
    for assessment in range(_ASSESSMENTS):
        content = f"{course}_{assessment}"
        metrics[f"score:{content}"] = (number + assessment) % 41 / 4
        metrics[f"max_score:{content}"] = 10.0
        metrics[f"attempts_count:{content}"] = 1.0 + number % 3
    return ActivityAgg(ActivityKey(course, f"learner-{number:08}", "b1"), _T_US, metrics, None)


def ready(work: Work) -> Callable[[], int]:
    """Return what a process is to do: the bare scan, or a report into a folder."""
    if work.kind == "report_scan":
        return _scan_plain(work.store)
    return _report(
        work.store, work.kind.removeprefix("report_"), Path(f"{work.dead_letters}.reports")
    )


def _scan_plain(address: str) -> Callable[[], int]:
    from group_scores.stores.aggregate_scan import report_columns
    from group_scores.stores.cassandra.address import CassandraAddress
    from group_scores.stores.cassandra.scan import aggregate_filter
    from group_scores.stores.cassandra.schema import AGGREGATES
    from group_scores.stores.cassandra.table_reader import TableReader, TableSource

    store = open_store(StoreConfig(address))
    columns = report_columns(store)
    store.close()
    where = tuple(aggregate_filter(Selection()).items())
    reader = TableReader(TableSource(CassandraAddress.parse(address), AGGREGATES, columns, where))
    return plain_loop(reader, *(value for _, value in where))


def _report(address: str, name: str, folder: Path) -> Callable[[], int]:
    from group_scores.reports.names import Names
    from group_scores.reports.spill import Spill
    from group_scores.reports.write import format_of, write_folder
    from group_scores.scores.report import report_row
    from group_scores.stores.aggregate_scan import aggregate_rows
    from group_scores.transforms.retry import Retry

    kind = format_of(name)
    settle()

    def run() -> int:
        folder.mkdir()
        try:
            with Spill() as spill:
                for row in aggregate_rows(StoreConfig(address), Selection(), Retry().call):
                    made = report_row(row)
                    if made is not None:
                        spill.add(made)
                write_folder(spill, kind, folder, Names())
                return spill.rows
        finally:
            shutil.rmtree(folder)

    return run


def show(figures: Figures) -> list[Any]:
    """Return the tables, and how memory grows."""
    tables = [_speeds(name, one) for name, one in figures.items()]
    grown = table_of("", ["Report, peak MB of ten times the rows / once", f"(aim: {AIM_GROWTH})"])
    for name in FORMATS:
        few, many = (figures[size][f"report_{name}"]["peak_mb"] for size in ("few", "many"))
        grown.add_row(name, f"{many / few:.2f}")
    return [*tables, grown]


def _speeds(name: str, figures: Figures) -> Any:
    head = f"Report, {figures['rows']:,} rows" + (", one course batch" if " " in name else "")
    table = table_of("", [head, "rows/s", "CPU µs/row", "cassandra's", "peak MB", "/ bare scan"])
    for kind in KINDS:
        one = figures[kind]
        table.add_row(
            "bare scan" if kind == "report_scan" else kind.removeprefix("report_"),
            f"{one['events_a_second']:,.0f}",
            f"{1000 * one['cpu_ms_an_event']:.1f}",
            f"{1000 * one['servers_cpu_ms_an_event']['cassandra']:.1f}",
            f"{one['peak_mb']:.0f}",
            f"{figures['ratios'][kind]:.2f}" if kind in figures["ratios"] else "",
        )
    return table
