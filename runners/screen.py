"""What a person sees: progress, the summary and the scores."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

_PLAIN_WIDTH = 120  # where there is no terminal to ask
_INTERVAL_S = 0.2


def console(*, stderr: bool = False) -> Console:
    """Return a console of the terminal's width; wide enough for a row where there is none."""
    made = Console(stderr=stderr, highlight=False)
    return made if made.is_terminal else Console(stderr=stderr, highlight=False, width=_PLAIN_WIDTH)


class _Rate(TextColumn):
    def __init__(self) -> None:
        super().__init__("")

    def render(self, task):  # type: ignore[no-untyped-def]
        return f"{task.speed:,.0f} events/s" if task.speed else ""


@contextmanager
def progress(
    out: Console, title: str, total: int | None, done: Callable[[], int]
) -> Iterator[None]:
    """Show a line with the events read so far, their rate and the time left; on a terminal only."""
    if not out.is_terminal:
        yield
        return
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _Rate(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    stop = threading.Event()
    with Progress(*columns, console=out, transient=True) as bar:
        task = bar.add_task(title, total=total)

        def follow() -> None:
            while not stop.wait(_INTERVAL_S):
                bar.update(task, completed=done())

        follower = threading.Thread(target=follow, daemon=True)
        follower.start()
        try:
            yield
        finally:
            stop.set()
            follower.join()
            bar.update(task, completed=done())


def scores_tables(rows: Iterable[Mapping[str, object]]) -> Iterator[Table]:
    """Yield a table of best scores for each course and batch of the aggregate rows."""
    batches: dict[tuple[str, str], list[tuple[str, ...]]] = {}
    for row in rows:
        place = (str(row["activity_id"]), str(row["context_id"]).removeprefix("cb:"))
        batches.setdefault(place, []).extend(score_lines(row))
    for (course, batch), lines in sorted(batches.items()):
        if not lines:
            continue
        table = Table(title=f"Course {course}, batch {batch}", title_justify="left")
        table.add_column("Learner", overflow="fold")
        table.add_column("Assessment", overflow="fold")
        for name in ("Best score", "of", "Attempts"):
            table.add_column(name, justify="right", no_wrap=True)
        table.add_column("Updated (UTC)", no_wrap=True)
        before = ""
        for learner, *cells in sorted(lines):
            table.add_row("" if learner == before else learner, *cells)
            before = learner
        yield table


def score_lines(row: Mapping[str, object]) -> Iterator[tuple[str, ...]]:
    """Yield (learner, assessment, score, maximum, attempts, time) as texts."""
    values: dict[str, float] = {**_map(row, "agg"), **_map(row, "aggregates")}
    updated = _map(row, "agg_last_updated")
    for key in sorted(values):
        metric, _, content = key.partition(":")
        if metric != "score":
            continue
        yield (
            str(row["user_id"]),
            content,
            _number(values[key]),
            _number(values.get(f"max_score:{content}")),
            _number(values.get(f"attempts_count:{content}")),
            _time(updated.get(key)),
        )


def _map(row: Mapping[str, object], name: str) -> dict[str, float]:
    value = row.get(name)
    return value if isinstance(value, dict) else {}


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.10g}"


def _time(value_ms: float | None) -> str:
    if value_ms is None:
        return ""
    return datetime.fromtimestamp(value_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M")


def summary_table(summary: Mapping[str, float]) -> Table:
    """Return the counts of a run as a table."""
    table = Table(show_header=False)
    table.add_column()
    table.add_column(justify="right")
    for name, value in summary.items():
        table.add_row(name.replace("_", " "), f"{value:,}")
    return table
