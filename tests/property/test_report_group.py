"""Reports of a group read back: the members' rows, whatever they are called."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any

import pyarrow.parquet
from hypothesis import given
from hypothesis import strategies as st

from group_scores.reports.csv_table import CsvTable
from group_scores.reports.group import Group
from group_scores.reports.html_page import HtmlPage
from group_scores.reports.names import Names
from group_scores.reports.parquet_table import ParquetTable
from group_scores.reports.spill import CourseBatch
from group_scores.reports.text import unguarded
from group_scores.scores.report import ReportRow
from group_scores.stores.groups import GroupMember
from tests.property.test_reports import Page, any_text, begins_a_formula, scores
from tests.values import examples

COURSE = "=course"
members = st.builds(
    GroupMember, user_id=any_text, role=st.none() | any_text, name=st.none() | any_text
)
groups = st.builds(
    Group,
    any_text,
    st.lists(members, min_size=1, max_size=5, unique_by=lambda one: one.user_id).map(tuple),
)


@st.composite
def reports(draw: st.DrawFn) -> tuple[Group, list[ReportRow]]:
    """A group, and rows of some of its members in none, one or two batches."""
    group = draw(groups)
    held = st.dictionaries(any_text, scores, max_size=2)
    rows = [
        ReportRow(COURSE, batch, member.user_id, draw(held), None)
        for member in group.members
        for batch in draw(st.sampled_from([(), ("b1",), ("b1", "@b2")]))
    ]
    return group, rows


def written(kind: Any, group: Group, found: Sequence[ReportRow]) -> bytes:
    contents = tuple(sorted({content for row in found for content in row.scores}))
    rows = group.rows(COURSE, found)
    out = io.BytesIO()
    count = kind.write(CourseBatch(COURSE, "", contents, iter(rows), group), out, Names())
    assert count == len(rows)
    return out.getvalue()


def expected(group: Group, found: Sequence[ReportRow]) -> list[tuple[Any, ...]]:
    """What a report has of each row, by a way of its own."""
    places = []
    for member in group.members:
        batches = [row.batch_id for row in found if row.user_id == member.user_id]
        for batch in batches or [None]:
            places.append((group.group_id, batch, member.user_id, member.name, member.role))
    return sorted(places, key=repr)


@examples(0.5)
@given(reports())
def test_every_member_stands_in_csv_with_each_batch_and_no_cell_is_a_formula(
    drawn: tuple[Group, list[ReportRow]],
) -> None:
    group, found = drawn
    text = written(CsvTable(bom=True), group, found).decode("utf-8-sig")
    head, *lines = csv.reader(io.StringIO(text, newline=""), strict=True)
    assert head[:6] == ["course_id", "batch_id", "user_id", "group_id", "name", "role"]
    assert not any(begins_a_formula(cell) for line in lines for cell in line[:6])
    cells = [[unguarded(cell) for cell in line[:6]] for line in lines]
    assert {line[0] for line in cells} == {COURSE}
    places = [(one, batch or None, user, name, role) for _, batch, user, one, name, role in cells]
    wanted = [
        (one, batch, user, name or "", role or "")
        for one, batch, user, name, role in expected(group, found)
    ]
    assert sorted(places, key=repr) == sorted(wanted, key=repr)


@examples(0.5)
@given(reports())
def test_every_member_stands_in_parquet(drawn: tuple[Group, list[ReportRow]]) -> None:
    group, found = drawn
    table = pyarrow.parquet.read_table(io.BytesIO(written(ParquetTable(), group, found)))
    columns = ("group_id", "batch_id", "user_id", "name", "role")
    places = [tuple(row[name] for name in columns) for row in table.to_pylist()]
    assert sorted(places, key=repr) == expected(group, found)
    by_key = {(row.user_id, row.batch_id): row for row in found}
    for row in table.to_pylist():
        if row["batch_id"] is None:
            assert row["attempts"] is None
            continue
        for content, one in by_key[row["user_id"], row["batch_id"]].scores.items():
            assert row[f"score:{content}"] == one.score


@examples(0.5)
@given(reports())
def test_the_page_is_whole_and_tells_who_is_not_enrolled(
    drawn: tuple[Group, list[ReportRow]],
) -> None:
    group, found = drawn
    page = Page(written(HtmlPage(), group, found).decode())
    assert page.open == []
    assert not {tag for tag, _ in page.tags} & {"script", "img", "a", "link", "iframe"}
    absent = len(group.members) - len({row.user_id for row in found})
    assert page.text.count("not enrolled") == absent
    assert f"{len(group.members)} members, {absent} of them not enrolled" in " ".join(page.text)
