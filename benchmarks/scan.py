"""Reading the attempts table of Cassandra and nothing else: a plain paged loop, and the source.

Both read the same columns over the same token ranges. The plain loop drops the rows as they come;
`through Beam` is ReadAttempts on the local runner into a step that counts: it also makes learners
of the rows, takes the cluster's time before each page and starts a pipeline.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from cassandra.concurrent import execute_concurrent_with_args

from benchmarks.bench import Bench, Figures, table_of
from benchmarks.figures import median_ratio, summary
from benchmarks.worker import Work
from tests.servers.cassandra_server import create_tables

ROWS_AN_EVENT = 5  # 100,000 rows unless it is told otherwise
_KEYSPACE = "scan"
_COLUMNS = (
    "user_id, course_id, batch_id, content_id, attempt_id, last_attempted_on, total_score, "
    "total_max_score"
)


def measure(bench: Bench) -> Figures:
    """Return the figures of both ways to read, and how they compare."""
    rows = ROWS_AN_EVENT * bench.events
    cassandra = bench.servers.cassandra
    bench.say(f"making {rows:,} rows")
    with cassandra.session() as session:
        create_tables(session, _KEYSPACE)
        insert = session.prepare(
            f"INSERT INTO {_KEYSPACE}.assessment_aggregator ({_COLUMNS}) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
        )
        execute_concurrent_with_args(session, insert, _rows(rows), concurrency=200)
    cassandra.nodetool("flush", _KEYSPACE)
    cassandra.nodetool("refreshsizeestimates")
    source = f"cassandra://{cassandra.host}:{cassandra.port}/{_KEYSPACE}"
    rounds = bench.alternate(
        {
            "plain": lambda: bench.run(Work(kind="scan_plain", source=source)),
            "beam": lambda: bench.run(Work(kind="scan_beam", source=source)),
        }
    )
    return {
        **{name: summary(found) for name, found in rounds.items()},
        "ratio": round(median_ratio(rounds["beam"], rounds["plain"], lambda m: m.rate), 3),
    }


def _rows(count: int) -> Iterator[tuple[Any, ...]]:
    """Ids as long as the field's, five attempts of a learner."""
    for number in range(count):
        user = number // 5
        yield (
            f"user-{user:032d}",
            f"do_{user % 20:020d}",
            f"batch-{user % 40:014d}",
            f"do_{number % 5:020d}",
            f"attempt-{number:024d}",
            1_760_000_000_000 + number,
            float(number % 11),
            10.0,
        )


def show(figures: Figures) -> list[Any]:
    """Return the table."""
    table = table_of("", ["Cassandra, reading alone", "rows/s", "CPU µs/row", "ratio"])
    for name, label, ratio in (
        ("plain", "plain paged loop", ""),
        ("beam", "through Beam", f"{figures['ratio']:.2f}"),
    ):
        one = figures[name]
        rate, cpu_us = one["events_a_second"], 1000 * one["cpu_ms_an_event"]
        table.add_row(label, f"{rate:,.0f}", f"{cpu_us:,.1f}", ratio)
    return [table]
