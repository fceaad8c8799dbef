"""Batch mode: the read of all attempts, and a whole re-aggregation in which nothing has changed.

The plain loop asks for the same ranges of tokens with the same driver, page by page, the next one
under way while one is counted, and counts rows. `through Beam` puts the rows of a learner together
and hands them on. The re-aggregation finds the best scores of everybody, reads every row of the
aggregates and compares. Five times as many attempts as the other benchmarks have events.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from benchmarks.bench import Bench, Figures, table_of
from benchmarks.figures import Measured, median_ratio, summary
from benchmarks.worker import Work
from group_scores.scores import ActivityKey, Attempt, Question
from group_scores.stores import AttemptWrite, StoreConfig, open_store

AIMS = {"scan_beam": 0.8, "reaggregate": 0.3}
_TIMES = 5
_ATTEMPTS_A_LEARNER = 5
_QUESTIONS = 5
_AT_ONCE = 2_000
_T_MS = 1_760_000_000_000


def measure(bench: Bench) -> Figures:
    """Return the figures of the three, and the ratios to the plain loop."""
    attempts = _TIMES * bench.events
    with bench.tables() as store:
        bench.say(f"writing {attempts:,} attempts")
        write_attempts(store, 0, attempts)

        def run(kind: Any) -> Measured:
            return bench.run(
                Work(
                    kind=kind,
                    source=store,
                    store=store,
                    dead_letters=bench.dead_letters,
                    servers=bench.server_pids(),
                )
            )

        bench.say("writing their aggregates")
        _aggregate(store, bench.dead_letters)
        kinds = ("scan_plain", *AIMS)
        rounds = bench.alternate({kind: lambda kind=kind: run(kind) for kind in kinds})
    return {
        **{kind: summary(found) for kind, found in rounds.items()},
        "ratios": {
            kind: round(median_ratio(rounds[kind], rounds["scan_plain"], lambda m: m.rate), 3)
            for kind in AIMS
        },
    }


def read_plain(address: str) -> Callable[[], int]:
    """Return the plain loop, ready to start."""
    from group_scores.stores.cassandra import CassandraSourceAddress
    from group_scores.stores.cassandra.scan_attempts import attempts_source
    from group_scores.stores.cassandra.table_reader import FETCH_ROWS, TableReader

    reader = TableReader(attempts_source(CassandraSourceAddress.parse(address)))
    session = reader._session

    def run() -> int:
        rows = 0
        for start, end, _ in reader.ranges():
            bound = reader._statement.bind((start, end))
            bound.fetch_size = FETCH_ROWS
            future = session.execute_async(bound)
            while future is not None:
                page = future.result()
                state = page.paging_state
                future = session.execute_async(bound, paging_state=state) if state else None
                rows += len(page.current_rows)
        reader.close()
        return rows

    return run


def write_attempts(address: str, first: int, last: int) -> None:
    """Write the attempts of these numbers, the last one not, five a learner with five questions."""
    store = open_store(StoreConfig(address))
    try:
        for start in range(first, last, _AT_ONCE):
            stop = min(start + _AT_ONCE, last)
            writes = [_attempt_write(number) for number in range(start, stop)]
            if any(store.write_attempts(writes)):
                raise RuntimeError("the attempts could not be written")
    finally:
        store.close()


def _attempt_write(number: int) -> AttemptWrite:
    learner, attempt = divmod(number, _ATTEMPTS_A_LEARNER)
    key = ActivityKey(f"do_{learner % 50}", f"learner-{learner:08}", f"batch-{learner % 3}")
    answer = {"1": "an answer of usual length"}
    questions = [
        Question(
            f"q{n}", _T_MS + n, 1.0, float(n % 2), "mcq", "Which?", [answer], [answer], None, 9
        )
        for n in range(_QUESTIONS)
    ]
    made = Attempt(
        key.user_id,
        key.course_id,
        key.batch_id,
        f"do_{number % 4}",
        f"attempt-{attempt}",
        _T_MS + number,
        float(number % 6),
        5.0,
        f"{number % 6}.0/5.0",
        questions,
    )
    time_us = (_T_MS + number) * 1000
    return AttemptWrite(made, time_us, time_us, create=True)


def _aggregate(address: str, dead_letters: str) -> None:
    from group_scores.pipelines import Job
    from group_scores.pipelines.sources import parse_source
    from group_scores.runners import launch
    from group_scores.runners.beam_options import pipeline_options

    job = Job(parse_source(address), StoreConfig(address), dead_letters)
    launch.run(job, pipeline_options([], []))


def show(figures: Figures) -> list[Any]:
    """Return the table."""
    rows = figures["scan_plain"]["events"]
    head = [f"Scan, {rows:,} attempts", "attempts/s", "CPU µs/attempt", "cassandra's", "peak MB"]
    table = table_of("", [*head, "/ plain (aim)"])
    for kind, label in (
        ("scan_plain", "plain paged loop"),
        ("scan_beam", "the read, through Beam"),
        ("reaggregate", "a whole re-aggregation"),
    ):
        one = figures[kind]
        ratio = f"{figures['ratios'][kind]:.2f} ({AIMS[kind]})" if kind in AIMS else ""
        table.add_row(
            label,
            f"{one['events_a_second']:,.0f}",
            f"{1000 * one['cpu_ms_an_event']:.1f}",
            f"{1000 * one['servers_cpu_ms_an_event']['cassandra']:.1f}",
            f"{one['peak_mb']:.0f}",
            ratio,
        )
    return [table]
