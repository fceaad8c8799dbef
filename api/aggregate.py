"""The rule of the answer: what the rows of a group's members say of an activity.

Source: the contract of the group aggregate API.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from group_scores.api.contract import (
    Activity,
    ActivityMetric,
    AggRequest,
    Member,
    MemberMetric,
    Result,
)
from group_scores.scores import AggregateRow
from group_scores.stores import ActivityRow
from group_scores.stores.groups import GroupMember

_EXACT = 2**53  # from here on a double is no count of anything


def aggregate(
    asked: AggRequest,
    members: Sequence[GroupMember],
    rows: Sequence[Sequence[ActivityRow]],
    now_ms: int,
) -> Result:
    """Put the rows of the active members together; `rows` has those of each member.

    One entry a row; `enrolmentCount` counts those who have any. A member without one is left out.
    """
    entries = [
        _entry(member, found.row)
        for member, of_member in zip(members, rows, strict=True)
        for found in of_member
    ]
    latest = _latest(metric.last_updated_on for entry in entries for metric in entry.agg)
    enrolled = len({entry.user_id for entry in entries})
    count = ActivityMetric("enrolmentCount", now_ms if latest is None else latest, enrolled)
    return Result(
        Activity(asked.activity_id, asked.activity_type, [count]), asked.group_id, entries
    )


def _entry(member: GroupMember, row: AggregateRow) -> Member:
    values = row.agg | row.aggregates
    metrics = [
        MemberMetric(name, _number(value), row.agg_last_updated_ms.get(name))
        for name, value in sorted(values.items())
    ]
    return Member(
        metrics, member.name or "", member.role, member.status, member.created_by, member.user_id
    )


def _number(value: float) -> int | float | None:
    """Return a whole number without a fraction; None for what JSON has no number for."""
    if not math.isfinite(value):
        return None
    return int(value) if abs(value) < _EXACT and value == int(value) else value


def _latest(times_ms: Iterable[int | None]) -> int | None:
    return max((time_ms for time_ms in times_ms if time_ms is not None), default=None)
