"""What a person sees: progress, the summary and the scores."""

from __future__ import annotations

import io
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from math import floor
from typing import Any

from rich import box
from rich.console import Console, RenderableType
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from group_scores.runners.command import write_out
from group_scores.runners.logs import JsonLines, printable

_PLAIN_WIDTH = 120  # where there is no terminal to ask
_WIDE = 100  # columns, with which every column of the scores has room for the usual ids
PLAIN: dict[str, Any] = {
    "box": box.SIMPLE_HEAD,
    "show_edge": False,
    "pad_edge": False,
    "padding": 0,
}
_INTERVAL_S = 0.2
_SPEED_OVER_S = 20.0


def _console(*, stderr: bool = False) -> Console:
    # Nothing in an id or a file name is markup, an emoji or worth a colour.
    file = sys.stderr if stderr else sys.stdout
    settings = {"file": file, "highlight": False, "markup": False, "emoji": False}
    made = Console(**settings)  # type: ignore[arg-type]
    return made if made.is_terminal else Console(**settings, width=_PLAIN_WIDTH)  # type: ignore[arg-type]


def tell(what: RenderableType) -> None:
    """Print on standard error: what is said of the work, beside its result."""
    if isinstance(sys.stderr, JsonLines):
        sys.stderr.say(_in_a_line(what))
        return
    _console(stderr=True).print(what, soft_wrap=isinstance(what, str))


def _in_a_line(what: RenderableType) -> str:
    """Return the text of something, a table's rows one after the other."""
    out = Console(file=io.StringIO(), width=_PLAIN_WIDTH, markup=False, emoji=False)
    with out.capture() as captured:
        out.print(what, soft_wrap=isinstance(what, str))
    rows = [" ".join(row.split()) for row in captured.get().splitlines()]
    return ", ".join(filter(None, rows))


def show(what: RenderableType) -> None:
    """Print on standard output: what was asked for."""
    out = _console()
    with out.capture() as captured:
        out.print(what, soft_wrap=isinstance(what, str))
    write_out(captured.get())


def count(number: float, one: str) -> str:
    """Return `1 event`, `2,000 events`."""
    return f"{number:,.0f} {one}{'' if number == 1 else 's'}"


class _Rate(TextColumn):
    def __init__(self) -> None:
        super().__init__("")

    def render(self, task: Task) -> Text:
        rate = f"{task.speed:,.0f}/s" if task.speed else ""
        done, planned = task.fields["ranges"]
        return Text(f"{rate} {floor(done):,}/{planned:,} ranges" if planned else rate)


class _Left(TimeRemainingColumn):
    """By the ranges, where there are some: among them are those of what is read beside."""

    def render(self, task: Task) -> Text:
        done, planned = task.fields["ranges"]
        if not done or not task.elapsed:
            return super().render(task)
        left = timedelta(seconds=round(task.elapsed * (planned - done) / done))
        return Text(str(left), style="progress.remaining")


def _follow(task: Task, done: int, ranges: tuple[float, int]) -> None:
    """Bring the line up to date; a total that is unknown, or too small, is told by the ranges."""
    read, planned = task.fields["ranges"] = ranges
    if read and (task.total is None or done > task.total):
        task.total = max(done, round(done * planned / read))


def _line(out: Console) -> Progress:
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        _Rate(),
        TimeElapsedColumn(),
        _Left(),
    )
    return Progress(*columns, console=out, transient=True, speed_estimate_period=_SPEED_OVER_S)


@contextmanager
def progress(
    title: str,
    total: int | None,
    done: Callable[[], int],
    ranges: Callable[[], tuple[float, int]] = lambda: (0.0, 0),
) -> Iterator[None]:
    """Show a line with the events so far, their rate and the time left; on a terminal only.

    Where the source is read by ranges, also how many of them have been, and of how many.
    """
    out = _console(stderr=True)
    if not out.is_terminal:
        yield
        return
    stop = threading.Event()
    with _line(out) as bar:
        task = bar.add_task(title, total=total, ranges=(0, 0))

        def update() -> None:
            number = done()
            _follow(bar.tasks[0], number, ranges())
            bar.update(task, completed=number)

        def follow() -> None:
            while not stop.wait(_INTERVAL_S):
                update()

        follower = threading.Thread(target=follow, daemon=True)
        follower.start()
        try:
            yield
        finally:
            stop.set()
            follower.join()
            update()


def scores_tables(rows: Iterable[Mapping[str, object]]) -> Iterator[Table]:
    """Yield a table of best scores for each course and batch of the aggregate rows."""
    batches: dict[tuple[str, str], list[tuple[str, ...]]] = {}
    for row in rows:
        course, batch = str(row["activity_id"]), str(row["context_id"]).removeprefix("cb:")
        place = (printable(course), printable(batch))
        batches.setdefault(place, []).extend(score_lines(row))
    for (course, batch), lines in sorted(batches.items()):
        if not lines:
            continue
        title = f"Course {course}, batch {batch}"
        table = Table(title=title, title_justify="left", title_style="bold", **PLAIN)
        table.add_column("Learner", overflow="fold")
        table.add_column("Assessment", overflow="fold")
        for name in ("Best", "of", "Attempts"):
            table.add_column(name, justify="right", no_wrap=True)
        if _console().width >= _WIDE:
            table.add_column("Updated (UTC)", no_wrap=True)
        before = ""
        for learner, *cells in sorted(lines):
            shown = "" if learner == before else learner
            table.add_row(shown, *cells[: len(table.columns) - 1])
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
            printable(str(row["user_id"])),
            printable(content),
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
    try:
        return datetime.fromtimestamp(value_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M")
    except (OverflowError, ValueError):  # a time past the year 9999, from elsewhere
        return f"{value_ms:.0f} ms"


def summary_table(summary: Mapping[str, float], dead_letter: str) -> Table:
    """Return the counts of a run as a table, with the place of the dead letters."""
    table = Table(show_header=False, **PLAIN)
    table.add_column()
    table.add_column(justify="right")
    table.add_column()
    for name, value in summary.items():
        place = f"in {dead_letter}" if name == "dead_letters" and value else ""
        table.add_row(name.replace("_", " "), f"{value:,}", place)
    return table
