"""Batch mode: the read of all attempts, and a whole re-aggregation in which nothing has changed.

The plain loop asks for the same ranges of tokens with the same driver, page by page, the next one
under way while one is counted, and counts rows. `through Beam` puts the rows of a learner together
and hands them on. The re-aggregation finds the best scores of everybody, reads every row of the
aggregates and compares; `verify` looks for rows without attempts, too. All of it with five times
as many attempts as the other benchmarks have events, and with ten times that: what a run costs
should grow with the attempts, and its memory should not.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from benchmarks.bench import Bench, Figures, table_of
from benchmarks.figures import Measured, median_ratio, summary
from benchmarks.kafka_to_cassandra import parts_of
from benchmarks.worker import Work
from group_scores.scores import ActivityKey, Attempt, Question
from group_scores.stores import AttemptWrite, StoreConfig, open_store
from group_scores.transforms.collector import settle

AIMS = {"scan_beam": 0.8, "reaggregate": 0.3}
KINDS = ("scan_plain", "scan_beam", "reaggregate", "verify")
_TIMES = 5
_MANY = 10
_ATTEMPTS_A_LEARNER = 5
_QUESTIONS = 5
_AT_ONCE = 2_000
_T_MS = 1_760_000_000_000


def measure(bench: Bench) -> Figures:
    """Return the figures for either number of attempts, and how memory grows between them."""
    few, many = _TIMES * bench.events, _MANY * _TIMES * bench.events
    figures = {
        str(few): _measure(bench, few, bench.rounds),
        str(many): _measure(bench, many, min(bench.rounds, 3), warm_up=False),
    }
    more_learners = (many - few) / _ATTEMPTS_A_LEARNER
    grown = {
        kind: figures[str(many)][kind]["peak_mb"] - figures[str(few)][kind]["peak_mb"]
        for kind in KINDS
    }
    return {
        **figures,
        "more_mb_a_million_learners": {
            kind: round(1_000_000 * mb / more_learners, 1) for kind, mb in grown.items()
        },
    }


def _measure(bench: Bench, attempts: int, rounds: int, *, warm_up: bool = True) -> Figures:
    with bench.tables() as store:
        bench.say(f"writing {attempts:,} attempts")
        write_attempts(store, 0, attempts)

        def run(kind: Any, *, stages: bool = False) -> Measured:
            return bench.run(
                Work(
                    kind=kind,
                    source=store,
                    store=store,
                    dead_letters=bench.dead_letters,
                    stages=stages,
                    servers=bench.server_pids(),
                )
            )

        bench.say("writing their aggregates")
        _aggregate(store, bench.dead_letters)
        found = bench.alternate(
            {kind: lambda kind=kind: run(kind) for kind in KINDS}, rounds=rounds, warm_up=warm_up
        )
        bench.say("once more, with clocks around the stages")
        parts = parts_of(run("reaggregate", stages=True))
    return {
        **{kind: summary(measured) for kind, measured in found.items()},
        "ratios": {
            kind: round(median_ratio(found[kind], found["scan_plain"], lambda m: m.rate), 3)
            for kind in KINDS[1:]
        },
        "parts": parts,
    }


def read_plain(address: str) -> Callable[[], int]:
    """Return the plain loop, ready to start."""
    from group_scores.stores.cassandra import CassandraSourceAddress
    from group_scores.stores.cassandra.scan_attempts import attempts_source
    from group_scores.stores.cassandra.table_reader import TableReader

    reader = TableReader(attempts_source(CassandraSourceAddress.parse(address)))
    return plain_loop(reader)


def plain_loop(reader: Any, *values: Any) -> Callable[[], int]:
    """Return a loop that counts the rows of all ranges, of `values` by the filter."""
    from group_scores.stores.cassandra.table_reader import FETCH_ROWS

    session = reader._session
    settle()  # as the pipeline's workers do

    def run() -> int:
        rows = 0
        for start, end, _ in reader.ranges():
            bound = reader._statement.bind((start, end, *values))
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
    """Return the tables."""
    sizes = [size for size in figures if size.isdigit()]
    grown = figures["more_mb_a_million_learners"]
    return [
        *(_speeds(int(size), figures[size], grown) for size in sizes),
        _parts({f"{int(size):,} attempts": figures[size]["parts"] for size in sizes}),
    ]


def _speeds(attempts: int, figures: Figures, grown: dict[str, float]) -> Any:
    head = [f"Scan, {attempts:,} attempts", "attempts/s", "CPU µs/attempt", "cassandra's"]
    table = table_of("", [*head, "peak MB", "more MB a million learners", "/ plain (aim)"])
    for kind, label in (
        ("scan_plain", "plain paged loop"),
        ("scan_beam", "the read, through Beam"),
        ("reaggregate", "a whole re-aggregation"),
        ("verify", "verify, rows without attempts too"),
    ):
        one = figures[kind]
        aim = f" ({AIMS[kind]})" if kind in AIMS else ""
        table.add_row(
            label,
            f"{one['events_a_second']:,.0f}",
            f"{1000 * one['cpu_ms_an_event']:.1f}",
            f"{1000 * one['servers_cpu_ms_an_event']['cassandra']:.1f}",
            f"{one['peak_mb']:.0f}",
            f"{grown[kind]:.0f}",
            f"{figures['ratios'][kind]:.2f}{aim}" if kind in figures["ratios"] else "",
        )
    return table


def _parts(parts: dict[str, dict[str, Any]]) -> Any:
    """Return the table of the re-aggregation's stages, for either number of attempts."""
    columns = [column for name in parts for column in (f"{name}: CPU", "waited")]
    table = table_of("", ["µs an attempt", *columns])
    names = dict.fromkeys(name for one in parts.values() for name in one["stages"])
    for name in names:
        cells = []
        for one in parts.values():
            stage = one["stages"].get(name)
            cells.append(f"{1000 * stage['cpu_ms_an_event']:.1f}" if stage else "")
            waited = stage and stage["calls"]
            cells.append(f"{1000 * stage['waited_ms_an_event']:.1f}" if waited else "")
        table.add_row(name, *cells)
    return table
