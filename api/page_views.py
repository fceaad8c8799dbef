"""What stands in the cells of the page, as texts: from the members' scores to the template."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from urllib.parse import quote, urlencode

from markupsafe import Markup

from group_scores.api.contract import MAX_ID
from group_scores.api.group_view import BatchScores, GroupScores, MemberScores
from group_scores.api.words import Words
from group_scores.reports.distribution import BINS, Distribution, bin_label
from group_scores.reports.names import Names
from group_scores.reports.text import number_text, time_text
from group_scores.scores.detail import DetailedAttempt
from group_scores.scores.report import AssessmentScore

MOST_LINES = 30_000
"""Of scores, some 5 MB: more is of no use in a browser, and the page has the first members."""

_LONGEST = 200  # characters of an id or a name; the CSV has all of it
_LEVELS = 5


@dataclass(frozen=True)
class Place:
    """Which group and activity a page is of; `query` is what its links keep."""

    group_id: str
    activity_id: str
    query: tuple[tuple[str, str], ...] = ()

    def url(self, **more: str) -> str:
        """Return the address of the group's page, as its own links and those of it have it.

        Relative to the group's page: what stands before the server may have added to the path.
        """
        return self._link(_part(self.activity_id), more)

    def url_from_member(self) -> str:
        """Return the same, relative to a member's page."""
        return f"../../{self.url()}"

    def member_url(self, user_id: str) -> str:
        """Return the address of a member's page, relative to the group's."""
        return self._link(f"{_part(self.activity_id)}/members/{_part(user_id)}", {})

    def _link(self, path: str, more: dict[str, str]) -> str:
        query = urlencode(dict(self.query) | more, errors="replace")
        return f"{path}?{query}" if query else path


def _part(text: str) -> str:
    """Return one part of a path: half a surrogate pair, which JSON can hold, has no UTF-8."""
    return quote(text, safe="", errors="replace")


@dataclass(frozen=True)
class Line:
    """One score in a cell: of a batch where there are several."""

    text: str
    percent: str | None = None
    bar: float | None = None
    batch: int | None = None


@dataclass(frozen=True)
class Cell:
    """A cell; rows are sorted by `value`, those without one last."""

    lines: tuple[Line, ...]
    value: float | None = None
    level: int | None = None


@dataclass(frozen=True)
class Row:
    """A member's row."""

    name: str
    user_id: str
    batches: tuple[int, ...]
    enrolled: bool
    cells: tuple[Cell, ...]
    total: Cell
    attempts: int | None
    attempts_text: str
    attempts_url: str | None
    progress: Cell
    updated: str
    updated_at: str
    updated_ms: int | None


@dataclass(frozen=True)
class Head:
    """The head of an assessment's column, and what its foot says."""

    name: str | None
    content_id: str
    spread: Distribution
    average: str | None


def heads(scores: GroupScores, names: Names) -> list[Head]:
    """Return the heads of the assessments' columns."""
    return [
        Head(
            shown(name) if name else None,
            shown(content),
            scores.spreads[content],
            percent_text(scores.spreads[content].mean_percent),
        )
        for content, name in ((one, names.name(one)) for one in scores.contents)
    ]


def rows(scores: GroupScores, words: Words, place: Place, *, details: bool) -> list[Row]:
    """Return the rows of the table, as many as MOST_LINES allows.

    With `details` a member who has attempts has a link to them. Where there are several batches, a
    row names each by its number among `scores.batches`, from 1: an id has no room in a cell.
    """
    maker = _Rows(scores, words, place, details)
    found: list[Row] = []
    lines = 0
    for member in scores.members:
        lines += (len(scores.contents) + 5) * max(len(member.batches), 1)
        if found and lines > MOST_LINES:
            break
        found.append(maker.row(member))
    return found


class _Rows:
    def __init__(self, scores: GroupScores, words: Words, place: Place, details: bool) -> None:
        self._contents = scores.contents
        self._words = words
        self._place = place
        self._details = details
        several = len(scores.batches) > 1
        self._numbers = (
            {batch: number for number, batch in enumerate(scores.batches, 1)} if several else {}
        )

    def row(self, member: MemberScores) -> Row:
        """Return a member's row."""
        words, user_id = self._words, member.member.user_id
        known = [one.row.attempts for one in member.batches if one.row.attempts is not None]
        attempts = sum(known) if known else None
        has_any = any(one.row.scores for one in member.batches)
        linked = self._details and has_any and len(user_id) <= MAX_ID and user_id not in (".", "..")
        nothing = "not_attempted" if member.batches else "not_enrolled"
        said = words["unknown" if has_any else nothing] if attempts is None else str(attempts)
        updated, updated_at = moment(member.updated_ms)
        return Row(
            shown(member.name),
            shown(user_id),
            tuple(self._numbers[one.batch_id] for one in member.batches if self._numbers),
            bool(member.batches),
            tuple(self._score_cell(member, content) for content in self._contents),
            self._total_cell(member),
            attempts,
            said,
            self._place.member_url(user_id) if linked else None,
            self._progress_cell(member),
            updated or words["unknown" if member.batches else nothing],
            updated_at,
            member.updated_ms,
        )

    def _labelled(self, member: MemberScores) -> Iterator[tuple[BatchScores, int | None]]:
        """Give each batch with its number, where the member is in several."""
        for one in member.batches:
            yield one, self._numbers[one.batch_id] if len(member.batches) > 1 else None

    def _not_enrolled(self) -> Cell:
        return Cell((Line(self._words["not_enrolled"]),))

    def _score_cell(self, member: MemberScores, content: str) -> Cell:
        if not member.batches:
            return self._not_enrolled()
        lines = tuple(
            score_line(one.row.scores.get(content), self._words, batch)
            for one, batch in self._labelled(member)
        )
        best = member.best(content)
        percent = None if best is None else best.percent
        return Cell(lines, percent, level(percent))

    def _total_cell(self, member: MemberScores) -> Cell:
        if not member.batches:
            return self._not_enrolled()
        lines = tuple(self._total_line(one, batch) for one, batch in self._labelled(member))
        return Cell(lines, member.total_percent, level(member.total_percent))

    def _total_line(self, one: BatchScores, batch: int | None) -> Line:
        words, total = self._words, one.total
        if not one.row.scores:
            return Line(words["not_attempted"], batch=batch)
        text = score_text(total.score, total.max_score, words)
        if total.percent is None:
            return Line(text, batch=batch)
        percent = words.plain("percent_of", percent=total.percent)
        return Line(text, percent, _bar(total.percent), batch)

    def _progress_cell(self, member: MemberScores) -> Cell:
        """Say what is completed, as another job counts it, and how much is attempted."""
        if not member.batches:
            return self._not_enrolled()
        lines = []
        for one, batch in self._labelled(member):
            if one.completed is not None:
                said = self._words.plain("completed", number=number_text(one.completed))
                lines.append(Line(said, batch=batch))
                batch = None
            of = {"number": len(one.row.scores), "all": len(self._contents)}
            lines.append(Line(self._words.plain("assessed", **of), batch=batch))
        return Cell(tuple(lines), member.completed)


def score_line(score: AssessmentScore | None, words: Words, batch: int | None = None) -> Line:
    """Return one score of a member as a line of a cell."""
    if score is None:
        return Line(words["not_attempted"], batch=batch)
    text = score_text(score.score, score.max_score, words)
    percent = percent_text(score.percent)
    if score.percent is None or percent is None:
        return Line(text, batch=batch)
    return Line(text, words.plain("percent_of", percent=percent), _bar(score.percent), batch)


def score_text(score: float | None, most: float | None, words: Words) -> str:
    """Return `8 of 10`, and in words what of it is not known."""
    if score is None and most is None:
        return words["unknown"]
    if score is not None and most is None:
        return words.plain("no_maximum", score=number_text(score))
    known = words["unknown"] if score is None else number_text(score)
    return words.plain("score_of", score=known, most=number_text(most))


def _bar(percent: float) -> float:
    return round(min(max(percent, 0), 100), 1)


def level(percent: float | None) -> int | None:
    """Return the fifth of the maximum that a percentage is in, from 0; None for none known."""
    if percent is None:
        return None
    return int(min(max(percent // (100 / _LEVELS), 0), _LEVELS - 1))


def percent_text(percent: float | None) -> str | None:
    """Return a percentage to one place, without a zero behind the point."""
    return None if percent is None else number_text(round(percent, 1))


def shown(text: str) -> str:
    """Return a text that has no control characters and an end."""
    clean = "".join(one if one.isprintable() else "\ufffd" for one in text[: _LONGEST + 1])
    return clean if len(clean) <= _LONGEST else f"{clean[:_LONGEST]}…"


def moment(value_ms: int | None) -> tuple[str, str]:
    """Return a time to the minute for reading, and for the machine; both empty where unknown."""
    exact = time_text(value_ms)
    date, at, time = exact.partition("T")
    return (f"{date} {time[:5]}" if at else exact), (exact if at else "")


def spread_words(spread: Distribution) -> str:
    """Return the counts of a distribution: `80-89 %: 3`, those that are not 0."""
    return ", ".join(
        f"{bin_label(number)} %: {count:,}" for number, count in enumerate(spread.bins) if count
    )


_SPARK_HIGH = 24


def spread_bars(spread: Distribution) -> Markup:
    """Return the bars of a small picture of a distribution: of the SVG view box 0 0 100 24."""
    most = max(*spread.bins, 1)
    parts = []
    for number, count in enumerate(spread.bins):
        if count:
            high = max(round(_SPARK_HIGH * count / most, 1), 1)
            x, y = number * 100 // BINS + 1, round(_SPARK_HIGH - high, 1)
            parts.append(f'<rect x="{x}" y="{y}" width="8" height="{high}"/>')
    return Markup("".join(parts))


@dataclass(frozen=True)
class Chart:
    """A picture of attempts: points in the SVG view box 0 0 300 100, and the same in words."""

    points: tuple[tuple[float, float], ...]
    percents: tuple[str, ...]


def chart(attempts: Sequence[DetailedAttempt]) -> Chart | None:
    """Return the picture of one assessment's attempts in order of time; None without any to show.

    Only those whose percentage is known; they stand at equal distances, as attempts are often
    seconds apart and then months.
    """
    known = [one.percent for one in attempts if one.percent is not None]
    if not known:
        return None
    step = 280 / max(len(known) - 1, 1)
    points = tuple(
        (round(10 + number * step, 1), round(95 - 0.9 * _bar(percent), 1))
        for number, percent in enumerate(known)
    )
    return Chart(points, tuple(f"{percent_text(percent)} %" for percent in known))
