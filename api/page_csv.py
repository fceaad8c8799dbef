"""The page's scores as CSV: a line for each member and batch, and for a member in none."""

from __future__ import annotations

import csv
import io
import re
from urllib.parse import quote

from group_scores.api.group_view import BatchScores, GroupScores, MemberScores
from group_scores.reports.csv_table import AFTER, OF_ASSESSMENT, score_cells
from group_scores.reports.names import Names
from group_scores.reports.text import guarded, number_text
from group_scores.scores.report import ReportRow

BEFORE = ("user_id", "name", "enrolled", "batch_id", "completed_count")
_BOM = "\ufeff"  # without it Excel takes UTF-8 for the encoding of the country


def group_csv(activity_id: str, scores: GroupScores, names: Names) -> bytes:
    """Return the table as UTF-8; what is not known or not attempted is empty.

    The columns from the scores on are those of the reports. No cell is a formula.
    """
    out = io.StringIO(newline="")
    lines = csv.writer(out, lineterminator="\r\n")
    labels = [names.label(content) for content in scores.contents]
    of_each = (guarded(f"{metric}:{label}") for label in labels for metric in OF_ASSESSMENT)
    lines.writerow([*BEFORE, *of_each, *AFTER])
    for member in scores.members:
        for batch in member.batches or (None,):
            lines.writerow(_line(activity_id, member, batch, scores.contents))
    return (_BOM + out.getvalue()).encode("utf-8", "replace")


def _line(
    activity_id: str, member: MemberScores, batch: BatchScores | None, contents: tuple[str, ...]
) -> list[str]:
    user_id = member.member.user_id
    who = [guarded(user_id), guarded(member.member.name or "")]
    if batch is None:
        nothing = ReportRow(activity_id, "", user_id, {}, None)
        return [*who, "no", "", "", *score_cells(nothing, contents)]
    which = ["yes", guarded(batch.batch_id), number_text(batch.completed)]
    return [*who, *which, *score_cells(batch.row, contents)]


def disposition(activity_id: str) -> str:
    """Return the header that has a browser save the file under a name of the activity."""
    safe = re.sub(r"[^\w.-]+", "-", activity_id[:100], flags=re.ASCII).strip(".-") or "activity"
    exact = quote(f"scores-{activity_id[:100]}.csv".encode("utf-8", "replace"), safe="")
    return f"attachment; filename=\"scores-{safe}.csv\"; filename*=UTF-8''{exact}"
