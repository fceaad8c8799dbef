"""A course batch as CSV: RFC 4180, UTF-8, and no cell that a spreadsheet would compute."""

from __future__ import annotations

import csv
import io
from functools import lru_cache
from typing import BinaryIO

from group_scores.reports.group import Group
from group_scores.reports.names import Names
from group_scores.reports.spill import CourseBatch
from group_scores.reports.text import guarded, number_text, time_text
from group_scores.scores.report import ReportRow, total_of

BEFORE = ("course_id", "batch_id", "user_id")
OF_MEMBER = ("group_id", "name", "role")
OF_ASSESSMENT = ("score", "max_score", "percent", "attempts_count")
AFTER = ("attempts", "total_score", "total_max_score", "total_percent", "last_updated")
_BOM = "\ufeff"


class CsvTable:
    """One line a learner, four columns an assessment; what is not known or attempted is empty.

    In a report of a group a member's name and role come behind the id; a member who is in no batch
    of the course has none.

    `bom` puts a byte order mark first: without it Excel takes UTF-8 for the encoding of the country
    and garbles names, and pandas, pyarrow and R skip it. In a pipe it would be in the way.
    """

    suffix = ".csv"

    def __init__(self, *, bom: bool) -> None:
        self._bom = bom

    def write(self, batch: CourseBatch, out: BinaryIO, names: Names) -> int:
        """Write the table and return the number of learners; raises OSError."""
        # A lone half of a surrogate pair has no UTF-8; no store holds one, a file of names may.
        text = io.TextIOWrapper(out, "utf-8", "replace", newline="", write_through=False)
        if self._bom:
            text.write(_BOM)
        lines = csv.writer(text, lineterminator="\r\n")
        labels = [names.label(content) for content in batch.contents]
        lines.writerow(
            [
                *BEFORE,
                *(OF_MEMBER if batch.group else ()),
                *(guarded(f"{metric}:{label}") for label in labels for metric in OF_ASSESSMENT),
                *AFTER,
            ]
        )
        learners = 0
        for row in batch.rows:
            lines.writerow(
                [
                    *_place(row.course_id, row.batch_id),
                    guarded(row.user_id),
                    *(_of_member(batch.group, row.user_id) if batch.group else ()),
                    *score_cells(row, batch.contents),
                ]
            )
            learners += 1
        text.flush()
        text.detach()
        return learners


@lru_cache(1_000)  # a batch has many learners
def _place(course_id: str, batch_id: str) -> tuple[str, str]:
    return guarded(course_id), guarded(batch_id)


def _of_member(group: Group, user_id: str) -> tuple[str, ...]:
    member = group.member(user_id)
    return tuple(guarded(text or "") for text in (group.group_id, member.name, member.role))


def score_cells(row: ReportRow, contents: tuple[str, ...]) -> list[str]:
    """Return the cells of a learner from the scores on: OF_ASSESSMENT of each, then AFTER."""
    cells: list[str] = []
    for content in contents:
        one = row.scores.get(content)
        if one is None:
            cells += ("", "", "", "")
        else:
            cells += (
                number_text(one.score),
                number_text(one.max_score),
                number_text(one.percent),
                number_text(one.attempts),
            )
    total = total_of(row)
    cells += (
        number_text(row.attempts),
        number_text(total.score),
        number_text(total.max_score),
        number_text(total.percent),
        time_text(row.updated_ms),
    )
    return cells
