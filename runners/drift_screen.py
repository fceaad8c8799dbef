"""What a person sees of a verification: what differs, and where most of it is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, get_args

from rich.bar import Bar
from rich.table import Table

from group_scores.runners import screen
from group_scores.runners.logs import printable
from group_scores.scores.drift import DETAILS, UPDATED, Difference, Kind

if TYPE_CHECKING:
    from group_scores.transforms.verify_agg import RowReport

KINDS: tuple[str, ...] = get_args(Kind)
_LISTED = 40
_COURSES = 20
_BAR_WIDTH = 24
_OF_COLUMN = {"agg": " (int)", UPDATED: " (time)"}  # beside the exact value of the same key


@dataclass
class Tally:
    """What became of the rows: how many differ, and of those that were to be repaired, are `left`.

    `orphans` counts rows that keep scores without attempts, as nobody asked for these to go.
    """

    repair: bool
    prune: bool
    rows: int = 0
    left: int = 0
    repaired: int = 0
    orphans: int = 0

    def add(self, report: RowReport) -> None:
        """Count a row."""
        left = report.left(repair=self.repair, prune=self.prune)
        self.rows += 1
        self.left += bool(left)
        self.repaired += not left and len(report.remaining) < len(report.differences)
        self.orphans += len(left) < len(report.remaining)


def show_drift(reports: Iterable[RowReport], counts: dict[str, float], tally: Tally) -> None:
    """Print the first differences, a picture by course and a sentence, and count in the `tally`.

    Takes the memory of a counter a course, however many rows there are.
    """
    listed: list[tuple[RowReport, Difference]] = []
    courses: dict[str, Counter[str]] = {}
    differences = 0
    for report in reports:
        tally.add(report)
        kinds = courses.setdefault(report.course_id, Counter())
        for one in report.differences:
            differences += 1
            kinds[one.kind] += 1
            if differences <= _LISTED:
                listed.append((report, one))
    if tally.rows:
        for table in _tables(listed, tally):
            screen.show(table)
            screen.show("")
        if differences > _LISTED:
            rest = screen.count(differences - _LISTED, "more difference")
            screen.show(f"… and {rest}; --format jsonl has all of them")
            screen.show("")
        screen.show(_picture(courses))
        screen.show("")
    screen.show(_sentence(counts, tally))
    if tally.orphans:
        screen.show(of_orphans(tally))


def _table(*columns: str) -> Table:
    table = Table(**screen.PLAIN)
    for name in columns:
        numeric = name in ("Is", "Should be", *map(str.capitalize, KINDS))
        table.add_column(
            name, justify="right" if numeric else "left", overflow="fold", no_wrap=numeric
        )
    return table


def _tables(listed: Sequence[tuple[RowReport, Difference]], tally: Tally) -> Iterator[Table]:
    """Yield a table for each course and batch."""

    def place(item: tuple[RowReport, Difference]) -> tuple[str, str]:
        return item[0].course_id, item[0].batch_id

    for (course, batch), items in groupby(sorted(listed, key=place), key=place):
        table = _table("Learner", "What", "Key", "Is", "Should be", "Repair")
        table.title = f"Course {printable(course)}, batch {printable(batch)}"
        table.title_justify, table.title_style = "left", "bold"
        for report, one in sorted(items, key=lambda item: (item[0].user_id, item[1].name)):
            table.add_row(*_cells(report, one), _repair(report, one, tally))
        yield table


def _cells(report: RowReport, one: Difference) -> Iterator[str]:
    yield printable(report.user_id)
    yield one.kind
    yield f"{printable(one.name or DETAILS)}{_OF_COLUMN.get(one.column, '')}"
    unit = " attempts" if one.column == DETAILS else ""
    yield _number(one.found, unit)
    yield _number(one.expected, unit)


def _repair(report: RowReport, one: Difference, tally: Tally) -> str:
    """Say what became of a difference; what is computed again may want another value there."""

    def stands_in(some: list[Difference]) -> bool:
        return any((other.column, other.name) == (one.column, one.name) for other in some)

    if not tally.repair:
        return ""
    if not stands_in(report.left(repair=tally.repair, prune=tally.prune)):
        return "" if stands_in(report.remaining) else "done"
    return f"refused: {printable(report.refused)}" if report.refused else "did not take"


def _number(value: float | None, unit: str) -> str:
    return "" if value is None else f"{value:.10g}{unit}"


def _picture(courses: dict[str, Counter[str]]) -> Table:
    """Return the courses with most of the differences, the longest bar for the most."""
    table = _table("Course", *map(str.capitalize, KINDS), "")
    ranked = sorted(courses.items(), key=lambda item: (-item[1].total(), item[0]))
    most = ranked[0][1].total()
    for course, tally in ranked[:_COURSES]:
        numbers = (f"{tally[kind]:,}" if tally[kind] else "" for kind in KINDS)
        bar = Bar(most, 0, tally.total(), width=_BAR_WIDTH)
        table.add_row(printable(course), *numbers, bar)
    if len(ranked) > _COURSES:
        others: Counter[str] = sum((tally for _, tally in ranked[_COURSES:]), Counter())
        name = screen.count(len(ranked) - _COURSES, "other course")
        table.add_row(name, *(f"{others[kind]:,}" if others[kind] else "" for kind in KINDS), "")
    return table


def of_orphans(tally: Tally) -> str:
    """Say in one line what stays for want of --prune."""
    have = "has" if tally.orphans == 1 else "have"
    return (
        f"{screen.count(tally.orphans, 'row')} {have} scores without any attempt; "
        "--repair --prune takes them out"
    )


def _sentence(counts: dict[str, float], tally: Tally) -> str:
    looked = (
        f"{screen.count(counts['attempts_read'], 'attempt')} read, "
        f"{screen.count(counts['aggregates_compared'], 'row')} compared in "
        f"{counts['seconds']:.1f} s"
    )
    if not tally.rows:
        return f"{looked}: nothing differs"
    if not tally.repair:
        return f"{looked}: {screen.count(tally.rows, 'row')} differ{'s' * (tally.rows == 1)}"
    repaired = f"{looked}: {screen.count(tally.repaired, 'row')} repaired"
    return f"{repaired}, {tally.left:,} still differ" if tally.left else repaired
