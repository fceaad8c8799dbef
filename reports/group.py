"""A group in a report: its members in order, also those who are in no batch of the course."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from group_scores.scores.report import ReportRow
from group_scores.stores.groups import GroupMember

NOT_ENROLLED = ""
"""The batch of a member who is in none: an event's batch is never blank."""


@dataclass(frozen=True)
class Group:
    """A group and the members that a report has."""

    group_id: str
    members: tuple[GroupMember, ...]

    @cached_property
    def _by_id(self) -> dict[str, GroupMember]:
        return {member.user_id: member for member in self.members}

    def member(self, user_id: str) -> GroupMember:
        """Return one of the members."""
        return self._by_id[user_id]

    def rows(self, course_id: str, found: Iterable[ReportRow]) -> list[ReportRow]:
        """Return a row for each member and batch, by name, and one for a member without any."""
        rows = list(found)
        enrolled = {row.user_id for row in rows}
        rows += [
            ReportRow(course_id, NOT_ENROLLED, member.user_id, {}, None)
            for member in self.members
            if member.user_id not in enrolled
        ]
        return sorted(rows, key=self._order)

    def _order(self, row: ReportRow) -> tuple[bool, str, str, str]:
        name = self.member(row.user_id).name or ""
        return not name, name.casefold(), row.user_id, row.batch_id
