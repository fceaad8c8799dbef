"""A course batch as a page: how the scores are spread, and the learners, in one file.

Nothing is loaded from anywhere and there is no script: it opens from a disk and goes by mail. All
text of other people's is escaped, and set apart where its direction may be another.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from html import escape
from typing import BinaryIO

from group_scores.reports.distribution import BINS, Distribution, bin_label
from group_scores.reports.names import Names
from group_scores.reports.page_parts import CHART_NOTE, HEAD, chart
from group_scores.reports.spill import CourseBatch
from group_scores.reports.text import number_text, time_text
from group_scores.scores.report import AssessmentScore, ReportRow, total_of

LEARNERS = 1_000
"""How many learners a page lists: one with more rows is of no use in a browser."""

_NOT_ATTEMPTED, _UNKNOWN = "not attempted", "unknown"


class HtmlPage:
    """The distribution for each assessment and for the total, then the first learners."""

    suffix = ".html"

    def write(self, batch: CourseBatch, out: BinaryIO, names: Names) -> int:
        """Write the page and return the number of learners; raises OSError."""
        total, by_content = Distribution(), defaultdict[str, Distribution](Distribution)
        first: list[ReportRow] = []
        learners = 0
        for row in batch.rows:
            learners += 1
            if len(first) < LEARNERS:
                first.append(row)
            for content, score in row.scores.items():
                by_content[content].add(score)
            if row.scores:
                total.add_percent(total_of(row).percent)
        for part in _page(batch, names, learners, total, by_content, first):
            out.write(part.encode("utf-8", "replace"))
        return learners


def _page(
    batch: CourseBatch,
    names: Names,
    learners: int,
    total: Distribution,
    by_content: dict[str, Distribution],
    first: list[ReportRow],
) -> Iterator[str]:
    yield HEAD.format(title=f"Scores of {escape(batch.course_id)}, batch {escape(batch.batch_id)}")
    yield f"<main>\n<h1>Scores of {_text(batch.course_id)}, batch {_text(batch.batch_id)}</h1>\n"
    yield f"<p>{learners:,} learners, {len(batch.contents):,} assessments. {CHART_NOTE}</p>\n"
    yield "<section><h2>Spread of the scores</h2>\n"
    yield _figure("All assessments together", total, learners)
    for content in batch.contents:
        yield _figure(_name(names, content), by_content[content], learners)
    yield "</section>\n"
    yield from _learners(batch, names, learners, first)
    yield "</main>\n</body>\n</html>\n"


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
    for title in ("Learner", *titles, "Attempts", "Total", "Percent", "Last updated (UTC)"):
        yield f'<th scope="col">{title}</th>'
    yield "</tr></thead>\n<tbody>\n"
    for row in first:
        yield f'<tr><th scope="row">{_text(row.user_id)}</th>'
        for content in batch.contents:
            yield f"<td>{_cell(row.scores.get(content))}</td>"
        total = total_of(row)
        nothing = _UNKNOWN if row.scores else _NOT_ATTEMPTED
        percent = nothing if total.percent is None else f"{total.percent} %"
        yield f"<td>{number_text(row.attempts) or nothing}</td>"
        yield f"<td>{_of(total.score, total.max_score) if row.scores else nothing}</td>"
        yield f"<td>{percent}</td><td>{time_text(row.updated_ms)}</td></tr>\n"
    yield "</tbody>\n</table>\n</div>\n</section>\n"


def _cell(score: AssessmentScore | None) -> str:
    return _NOT_ATTEMPTED if score is None else _of(score.score, score.max_score)


def _of(score: float | None, most: float | None) -> str:
    return f"{number_text(score) or _UNKNOWN} of {number_text(most) or _UNKNOWN}"
