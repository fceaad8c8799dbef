"""A course batch as a page: how the scores are spread, and the learners, in one file.

Nothing is loaded from anywhere and there is no script: it opens from a disk and goes by mail. All
text of other people's is escaped, and set apart where its direction may be another.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from html import escape
from typing import BinaryIO

from group_scores.reports.distribution import BINS, Distribution, bin_label
from group_scores.reports.group import NOT_ENROLLED, Group
from group_scores.reports.names import Names
from group_scores.reports.page_parts import CHART_NOTE, HEAD, chart
from group_scores.reports.spill import CourseBatch
from group_scores.reports.text import number_text, time_text
from group_scores.scores.report import AssessmentScore, ReportRow, total_of

LEARNERS = 1_000
"""How many learners a page lists: one with more rows is of no use in a browser."""

_NOT_ATTEMPTED, _NOT_ENROLLED, _UNKNOWN = "not attempted", "not enrolled", "unknown"


class HtmlPage:
    """The distribution for each assessment and for the total, then the first learners.

    In a report of a group those who are not enrolled are listed, and in no distribution.
    """

    suffix = ".html"

    def write(self, batch: CourseBatch, out: BinaryIO, names: Names) -> int:
        """Write the page and return the number of learners; raises OSError."""
        total, by_content = Distribution(), defaultdict[str, Distribution](Distribution)
        first: list[ReportRow] = []
        learners = absent = 0
        for row in batch.rows:
            learners += 1
            absent += batch.group is not None and row.batch_id == NOT_ENROLLED
            if len(first) < LEARNERS:
                first.append(row)
            for content, score in row.scores.items():
                by_content[content].add(score)
            if row.scores:
                total.add_percent(total_of(row).percent)
        for part in _page(batch, names, (learners, absent), total, by_content, first):
            out.write(part.encode("utf-8", "replace"))
        return learners


def _page(
    batch: CourseBatch,
    names: Names,
    counts: tuple[int, int],
    total: Distribution,
    by_content: dict[str, Distribution],
    first: list[ReportRow],
) -> Iterator[str]:
    learners, absent = counts
    yield HEAD.format(title=f"Scores of {_title(batch, escape)}")
    yield f"<main>\n<h1>Scores of {_title(batch, _text)}</h1>\n"
    facts = [f"{learners:,} learners"]
    if batch.group:
        facts = [f"{len(batch.group.members):,} members", f"{absent:,} of them not enrolled"]
    yield f"<p>{', '.join(facts)}, {len(batch.contents):,} assessments. {CHART_NOTE}</p>\n"
    yield "<section><h2>Spread of the scores</h2>\n"
    yield _figure("All assessments together", total, learners - absent)
    for content in batch.contents:
        yield _figure(_name(names, content), by_content[content], learners - absent)
    yield "</section>\n"
    yield from _learners(batch, names, learners, first)
    yield "</main>\n</body>\n</html>\n"


def _title(batch: CourseBatch, shown: Callable[[str], str]) -> str:
    place = shown(batch.course_id)
    if batch.batch_id:
        place += f", batch {shown(batch.batch_id)}"
    return f"group {shown(batch.group.group_id)} in {place}" if batch.group else place


def _text(text: str) -> str:
    """Return text that cannot be markup, nor turn the direction of what stands around it."""
    return f"<bdi>{escape(text)}</bdi>"


def _name(names: Names, content: str) -> str:
    name = names.name(content)
    return _text(content) if name is None else f"{_text(name)} <small>{_text(content)}</small>"


def _figure(title: str, spread: Distribution, learners: int) -> str:
    """Return a picture of one distribution, and the same numbers as a table."""
    mean = spread.mean_percent
    facts = [
        f"{spread.attempted:,} of {learners:,} have attempted",
        *([] if mean is None else [f"mean {mean:.1f} %"]),
        *([f"{spread.unknown:,} without a known percentage"] if spread.unknown else []),
    ]
    rows = "".join(
        f'<tr><th scope="row">{bin_label(number)} %</th><td>{spread.bins[number]:,}</td></tr>'
        for number in range(BINS)
    )
    more = [("no percentage", spread.unknown), ("not attempted", learners - spread.attempted)]
    rows += "".join(
        f'<tr><th scope="row">{label}</th><td>{count:,}</td></tr>' for label, count in more
    )
    head = '<tr><th scope="col">Score</th><th scope="col">Learners</th></tr>'
    return (
        f"<figure>\n<figcaption><h3>{title}</h3><p>{', '.join(facts)}</p></figcaption>\n"
        f"{chart(spread)}\n<details><summary>As a table</summary>"
        f"<table><thead>{head}</thead><tbody>{rows}</tbody></table></details>\n</figure>\n"
    )


def _learners(
    batch: CourseBatch, names: Names, learners: int, first: list[ReportRow]
) -> Iterator[str]:
    shown = "" if learners <= len(first) else f"The first {len(first):,}; the CSV has all. "
    yield f"<section><h2>Learners</h2>\n<p>{shown}What is not attempted counts nowhere.</p>\n"
    # What scrolls has to be within reach of the keyboard.
    yield '<div class="wide" role="region" aria-label="Learners" tabindex="0">\n'
    yield "<table>\n<thead><tr>"
    titles = [_name(names, content) for content in batch.contents]
    place = ("Batch",) if batch.group else ()
    for title in ("Learner", *place, *titles, "Attempts", "Total", "Percent", "Last updated (UTC)"):
        yield f'<th scope="col">{title}</th>'
    yield "</tr></thead>\n<tbody>\n"
    for row in first:
        yield f'<tr><th scope="row">{_learner(batch.group, row.user_id)}</th>'
        if batch.group:
            yield f"<td>{_text(row.batch_id) if row.batch_id else _NOT_ENROLLED}</td>"
        for content in batch.contents:
            yield f"<td>{_cell(row.scores.get(content))}</td>"
        total = total_of(row)
        nothing = _UNKNOWN if row.scores else _NOT_ATTEMPTED
        percent = nothing if total.percent is None else f"{total.percent} %"
        yield f"<td>{number_text(row.attempts) or nothing}</td>"
        yield f"<td>{_of(total.score, total.max_score) if row.scores else nothing}</td>"
        yield f"<td>{percent}</td><td>{time_text(row.updated_ms)}</td></tr>\n"
    yield "</tbody>\n</table>\n</div>\n</section>\n"


def _learner(group: Group | None, user_id: str) -> str:
    name = group.member(user_id).name if group else None
    return f"{_text(name)} <small>{_text(user_id)}</small>" if name else _text(user_id)


def _cell(score: AssessmentScore | None) -> str:
    return _NOT_ATTEMPTED if score is None else _of(score.score, score.max_score)


def _of(score: float | None, most: float | None) -> str:
    return f"{number_text(score) or _UNKNOWN} of {number_text(most) or _UNKNOWN}"
