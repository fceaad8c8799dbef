"""What the page of a group shows: each active member once, with the scores in every batch.

Pure values from members and rows. What is not known, or not attempted, is None here or absent, and
never 0.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

from group_scores.reports.distribution import Distribution
from group_scores.scores.report import AssessmentScore, ReportRow, Total, report_row, total_of
from group_scores.stores import ActivityRow
from group_scores.stores.groups import GroupMember

T = TypeVar("T")
_BATCH = "cb:"
_COMPLETED = "completedCount"


@dataclass(frozen=True)
class BatchScores:
    """A member's scores in one batch of the activity.

    `completed` is the number of contents that the member has completed: another job's metric.
    `updated_ms` is when any value of the row was last written, epoch ms.
    """

    row: ReportRow
    completed: float | None
    updated_ms: int | None

    @property
    def batch_id(self) -> str:
        """The batch; the whole context of a row that is of another kind of context."""
        return self.row.batch_id

    @cached_property
    def total(self) -> Total:
        """The sums over the assessments."""
        return total_of(self.row)


@dataclass(frozen=True)
class MemberScores:
    """An active member and the batches that the member is in; none: not enrolled."""

    member: GroupMember
    batches: tuple[BatchScores, ...]

    @property
    def name(self) -> str:
        """The name, where the source of groups has one, else the id."""
        return (self.member.name or "").strip() or self.member.user_id

    @property
    def updated_ms(self) -> int | None:
        """When any value of the member was last written, epoch ms."""
        return max(_known(one.updated_ms for one in self.batches), default=None)

    @property
    def completed(self) -> float | None:
        """The most contents that the member has completed in any batch."""
        return max(_known(one.completed for one in self.batches), default=None)

    @property
    def total_percent(self) -> int | None:
        """The greatest total of any batch, in percent."""
        return max(_known(one.total.percent for one in self.batches), default=None)

    def best(self, content: str) -> AssessmentScore | None:
        """Return the best score of an assessment in any batch; None: in none attempted.

        The greatest percentage; where none is known, the greatest score.
        """
        found = [one.row.scores[content] for one in self.batches if content in one.row.scores]
        return max(found, key=_rank, default=None)


@dataclass(frozen=True)
class GroupScores:
    """The members by name, and the assessments that any of them has attempted."""

    members: tuple[MemberScores, ...]
    contents: tuple[str, ...]
    spreads: dict[str, Distribution]

    @property
    def enrolled(self) -> int:
        """How many members are in any batch."""
        return sum(1 for one in self.members if one.batches)

    @cached_property
    def batches(self) -> tuple[str, ...]:
        """The batches that any member is in."""
        return tuple(sorted({one.batch_id for member in self.members for one in member.batches}))


def group_scores(
    activity_id: str, members: Sequence[GroupMember], rows: Sequence[Sequence[ActivityRow]]
) -> GroupScores:
    """Put the rows of the active members together; `rows` has those of each member.

    An average and a spread are over those who have attempted an assessment, each of them once.
    """
    found = [
        MemberScores(member, tuple(_batches(activity_id, member, of_member)))
        for member, of_member in zip(members, rows, strict=True)
    ]
    found.sort(key=lambda one: (one.name.casefold(), one.member.user_id))
    contents = sorted({key for one in found for batch in one.batches for key in batch.row.scores})
    spreads = {content: Distribution() for content in contents}
    for member in found:
        for content, spread in spreads.items():
            best = member.best(content)
            if best is not None:
                spread.add(best)
    return GroupScores(tuple(found), tuple(contents), spreads)


def _batches(
    activity_id: str, member: GroupMember, rows: Sequence[ActivityRow]
) -> Iterator[BatchScores]:
    for found in sorted(rows, key=lambda one: one.context_id):
        row = report_row(
            {
                "activity_id": activity_id,
                "user_id": member.user_id,
                "context_id": _BATCH + found.context_id.removeprefix(_BATCH),
                "agg": found.row.agg,
                "aggregates": found.row.aggregates,
                "agg_last_updated": found.row.agg_last_updated_ms,
            }
        )
        assert row is not None
        values = found.row.agg | found.row.aggregates
        completed = values.get(_COMPLETED)
        yield BatchScores(
            row,
            completed if completed is not None and math.isfinite(completed) else None,
            max(found.row.agg_last_updated_ms.values(), default=None),
        )


def _rank(score: AssessmentScore) -> tuple[float, float]:
    percent = -math.inf if score.percent is None else score.percent
    return percent, -math.inf if score.score is None else score.score


def _known(values: Iterable[T | None]) -> Iterator[T]:
    return (value for value in values if value is not None)
