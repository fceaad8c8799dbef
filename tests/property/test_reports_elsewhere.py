"""Reports read by DuckDB, which has readers of its own for CSV and Parquet: the rows, exactly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb
import pytest
from hypothesis import given
from hypothesis import strategies as st

from group_scores.reports.csv_table import CsvTable
from group_scores.reports.names import Names
from group_scores.reports.parquet_table import ParquetTable
from group_scores.reports.text import unguarded
from group_scores.scores.report import AssessmentScore, ReportRow, total_of
from tests.property.test_reports import learners, names, row_key, written
from tests.values import examples

NASTY = [
    *("=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "'=1", '=HYPERLINK("http://x","y")', "1;=2"),
    *(
        "🙂👩‍👩‍👧",
        "مرحبا",
        "\u202eright",
        'say "x", y',
        "two\r\nlines",
        " blank ",
        "NULL",
        "0158",
        "é",
    ),
]
METRICS = ("score", "max_score", "percent", "attempts_count")


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file that is written anew for each example."""
    return tmp_path_factory.mktemp("report") / "report"


def values_of(row: ReportRow, contents: list[str]) -> list[Any]:
    """What a report has behind the id of a learner, by its columns."""
    cells: list[Any] = []
    for content in contents:
        one = row.scores.get(content, AssessmentScore())
        cells += [one.score, one.max_score, one.percent, one.attempts]
    total = total_of(row)
    return [*cells, row.attempts, total.score, total.max_score, total.percent, row.updated_ms]


def contents_of(drawn: list[ReportRow]) -> list[str]:
    return sorted({content for row in drawn for content in row.scores})


@examples(0.25)
@given(learners, names)
def test_parquet(path: Path, drawn: list[ReportRow], names: Names) -> None:
    path.write_bytes(written(ParquetTable(), drawn, names))
    table = duckdb.execute(
        "SELECT * REPLACE (epoch_ms(last_updated) AS last_updated) FROM read_parquet(?)",
        [str(path)],
    )
    contents = contents_of(drawn)
    expected = sorted(drawn, key=lambda row: row.key)
    for found, row in zip(table.fetchall(), expected, strict=True):
        assert list(found) == [*row_key(row), *values_of(row, contents)]


nasty_rows = st.lists(
    st.builds(
        ReportRow,
        course_id=st.just("=course"),
        batch_id=st.just("@batch"),
        user_id=st.sampled_from(NASTY),
        scores=st.dictionaries(
            st.sampled_from(NASTY),
            st.builds(
                AssessmentScore,
                st.none() | st.floats(-1e6, 1e6),
                st.none() | st.floats(0, 1e6),
                st.none() | st.integers(0, 1000),
            ),
            max_size=3,
        ),
        updated_ms=st.none() | st.integers(0, 253_402_300_799_999),
    ),
    min_size=1,
    max_size=6,
    unique_by=lambda row: row.user_id,
)
nasty_names = st.dictionaries(st.sampled_from(NASTY), st.sampled_from(NASTY), max_size=3).map(Names)


@examples(0.25)
@given(nasty_rows, nasty_names)
def test_csv(path: Path, drawn: list[ReportRow], names: Names) -> None:
    path.write_bytes(written(CsvTable(bom=True), drawn, names))
    table = duckdb.execute(
        "SELECT * FROM read_csv(?, header=false, all_varchar=true, delim=',', quote='\"', "
        "escape='\"', new_line='\\r\\n', nullstr='', auto_detect=false, columns=?)",
        [str(path), {f"c{n}": "VARCHAR" for n in range(3 + 4 * len(contents_of(drawn)) + 5)}],
    )
    head, *lines = table.fetchall()
    contents = contents_of(drawn)
    labels = [f"{metric}:{names.label(one)}" for one in contents for metric in METRICS]
    assert [unguarded(cell) for cell in head[3:-5]] == labels
    assert head[0] in ("course_id", "\ufeffcourse_id")
    expected = sorted(drawn, key=lambda row: row.key)
    for found, row in zip(lines, expected, strict=True):
        assert tuple(unguarded(cell) for cell in found[:3]) == row_key(row)
        *cells, updated = found[3:]
        assert [None if cell is None else float(cell) for cell in cells] == values_of(
            row, contents
        )[:-1]
        assert (updated is None) == (row.updated_ms is None)


def test_csv_as_it_comes(path: Path) -> None:
    """Nothing has to be said of the file: header, types and the mark are found."""
    drawn = [
        ReportRow("c", "b", user, {"a": AssessmentScore(1.5, 2.0, 3)}, 1_760_000_000_123)
        for user in ("u1", "u2")
    ]
    path.write_bytes(written(CsvTable(bom=True), drawn, Names()))
    query = 'SELECT course_id, user_id, "score:a", total_percent FROM read_csv(?)'
    found = duckdb.execute(query, [str(path)]).fetchall()
    assert found == [("c", "u1", 1.5, 75), ("c", "u2", 1.5, 75)]
