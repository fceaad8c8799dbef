"""Reports read back: by `csv`, pyarrow and an HTML parser, equal to the rows and harmless."""

from __future__ import annotations

import csv
import io
import random
import unicodedata
from collections.abc import Sequence
from html.parser import HTMLParser
from typing import Any

import pyarrow.csv
import pyarrow.parquet
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from group_scores.reports import parquet_table
from group_scores.reports.csv_table import CsvTable
from group_scores.reports.files import file_name
from group_scores.reports.html_page import HtmlPage
from group_scores.reports.names import Names
from group_scores.reports.parquet_table import ParquetTable
from group_scores.reports.spill import CourseBatch, Spill
from group_scores.reports.text import guarded, unguarded
from group_scores.scores.report import AssessmentScore, ReportRow, total_of
from tests.values import examples, texts

DANGEROUS = "=+-@\t\r\n\uff1d\uff0b\uff0d\uff20"
nasty = st.text(st.sampled_from(DANGEROUS + "',;|\" a1()<>&\u200f\ufeff\u00a0"), max_size=8)
any_text = texts | nasty
finite = st.floats(allow_nan=False, allow_infinity=False)
scores = st.builds(
    AssessmentScore, st.none() | finite, st.none() | finite, st.none() | st.integers(0, 2**31 - 1)
)
rows = st.builds(
    ReportRow,
    course_id=st.just("=course"),
    batch_id=st.just("@batch"),
    user_id=any_text,
    scores=st.dictionaries(any_text, scores, max_size=3),
    updated_ms=st.none() | st.integers(0, 253_402_300_799_999),
)
learners = st.lists(rows, min_size=1, max_size=5, unique_by=lambda row: row.user_id)
names = st.dictionaries(any_text, any_text, max_size=3).map(Names)


def gathered(drawn: Sequence[ReportRow], run_bytes: int = 1) -> list[tuple[CourseBatch, list[Any]]]:
    with Spill(run_bytes=run_bytes) as spill:
        for row in drawn:
            spill.add(row)
        return [(batch, list(batch.rows)) for batch in spill.by_course_batch()]


def written(kind: Any, drawn: Sequence[ReportRow], names: Names) -> bytes:
    out = io.BytesIO()
    ((batch, found),) = gathered(drawn)
    again = CourseBatch(batch.course_id, batch.batch_id, batch.contents, iter(found))
    assert kind.write(again, out, names) == len(drawn)
    return out.getvalue()


def begins_a_formula(text: str) -> bool:
    seen = (one for one in text if one in "\t\r\n" or not is_skipped(one))
    return next(seen, "a") in DANGEROUS


def is_skipped(character: str) -> bool:
    """White space, control characters, marks of direction and of the byte order."""
    kind = unicodedata.category(character)
    return (
        kind in ("Cc", "Zs", "Zl", "Zp")
        or "\u200b" <= character <= "\u200f"
        or (character in "\u202a\u202b\u202c\u202d\u202e\u2060\u2066\u2067\u2068\u2069\ufeff")
    )


def number(text: str) -> float | None:
    return None if text == "" else float(text)


class TestSpill:
    @pytest.mark.parametrize("run_bytes", [1, 1000, 50_000, 10**9])
    def test_gives_all_rows_by_course_batch_in_order(self, run_bytes: int) -> None:
        drawn = [
            ReportRow(f"c{n % 3}", f"b{n % 2}", f"u{n:04}", {f"a{n % 7}": AssessmentScore(n)}, n)
            for n in range(700)
        ]
        mixed = random.Random(1).sample(drawn, len(drawn))
        found = gathered(mixed, run_bytes)
        with Spill(run_bytes=run_bytes) as spill:
            for row in mixed:
                spill.add(row)
            assert (spill.rows, spill.given) == (700, 0)
            for batch in spill.by_course_batch():
                list(batch.rows)
            assert spill.given == 700
        assert [(batch.course_id, batch.batch_id) for batch, _ in found] == [
            (f"c{c}", f"b{b}") for c in range(3) for b in range(2)
        ]
        assert all(batch.contents == tuple(f"a{n}" for n in range(7)) for batch, _ in found)
        assert [row for _, of_batch in found for row in of_batch] == sorted(
            drawn, key=lambda row: row.key
        )

    def test_takes_a_row_that_is_longer_than_what_is_read_at_once(self) -> None:
        row = ReportRow("c", "b", "u" * 65_000, {"x" * 65_000: AssessmentScore(1.0)}, None)
        assert [r for _, of_batch in gathered([row, row]) for r in of_batch] == [row, row]


class TestGuard:
    @given(any_text)
    @example("=1+1;=2+2")
    @example("'=x")
    @example(' \ufeff\t=cmd|"/c calc"!A1')
    def test_leaves_no_formula_in_any_cell_and_is_undone(self, text: str) -> None:
        safe = guarded(text)
        assert unguarded(safe) == text
        for separator in (None, ";", "\t", "|", ","):
            cells = safe.split(separator) if separator else [safe]
            assert not any(begins_a_formula(cell) for cell in cells), (safe, separator)

    @given(st.text("abcABC 019_.do", max_size=20))
    def test_leaves_plain_ids_alone(self, text: str) -> None:
        assert guarded(text) == text

    def test_takes_no_time_for_a_long_text(self) -> None:
        for one in (" ", ";", "\t", "; "):
            assert unguarded(guarded(one * 60_000)) == one * 60_000


class TestCsv:
    @examples(1)
    @given(learners, names)
    def test_has_the_rows_when_it_is_read_back(self, drawn: list[ReportRow], names: Names) -> None:
        data = written(CsvTable(bom=True), drawn, names)
        assert data.startswith(b"\xef\xbb\xbfcourse_id,")
        head, *lines = csv.reader(io.StringIO(data.decode("utf-8-sig"), newline=""), strict=True)
        contents = sorted({content for row in drawn for content in row.scores})
        assert [unguarded(cell) for cell in head] == [
            *("course_id", "batch_id", "user_id"),
            *(
                f"{metric}:{names.label(content)}"
                for content in contents
                for metric in ("score", "max_score", "percent", "attempts_count")
            ),
            *("attempts", "total_score", "total_max_score", "total_percent", "last_updated"),
        ]
        for row, cells in zip(sorted(drawn, key=lambda row: row.key), lines, strict=True):
            texts_of = cells[:3]
            assert not any(map(begins_a_formula, texts_of + head))
            assert [unguarded(cell) for cell in texts_of] == list(row_key(row))
            total = total_of(row)
            expected: list[float | None] = []
            for content in contents:
                one = row.scores.get(content, AssessmentScore())
                expected += [one.score, one.max_score, one.percent, one.attempts]
            expected += [row.attempts, total.score, total.max_score, total.percent]
            assert [number(cell) for cell in cells[3:-1]] == expected
            assert (cells[-1] == "") == (row.updated_ms is None)

    def test_is_read_by_pyarrow(self) -> None:
        drawn = [
            ReportRow("c", "b", "u1", {"a": AssessmentScore(1.5, 2.0, 3)}, 1_760_000_000_123),
            ReportRow("c", "b", "u2", {}, None),
        ]
        table = pyarrow.csv.read_csv(io.BytesIO(written(CsvTable(bom=True), drawn, Names())))
        assert table.column_names[:4] == ["course_id", "batch_id", "user_id", "score:a"]
        assert table["score:a"].to_pylist() == [1.5, None]
        assert table["total_percent"].to_pylist() == [75, None]
        assert table["last_updated"][0].as_py().isoformat() == "2025-10-09T08:53:20.123000+00:00"

    def test_has_no_mark_in_a_pipe_and_ends_lines_as_the_rfc_says(self) -> None:
        drawn = [ReportRow("c", "b", 'say "x", y\n', {}, None)]
        data = written(CsvTable(bom=False), drawn, Names())
        assert data.endswith(b'\r\nc,b,"say ""x"", y\n",,,,,\r\n')
        assert data.startswith(b"course_id,")


class TestParquet:
    @examples(0.5)
    @given(learners, names)
    def test_has_the_rows_when_it_is_read_back(self, drawn: list[ReportRow], names: Names) -> None:
        table = pyarrow.parquet.read_table(io.BytesIO(written(ParquetTable(), drawn, names)))
        contents = sorted({content for row in drawn for content in row.scores})
        for row, found in zip(
            sorted(drawn, key=lambda row: row.key), table.to_pylist(), strict=True
        ):
            total = total_of(row)
            assert (found["course_id"], found["batch_id"], found["user_id"]) == row_key(row)
            for content in contents:
                one = row.scores.get(content, AssessmentScore())
                assert found[f"score:{content}"] == one.score
                assert found[f"max_score:{content}"] == one.max_score
                assert found[f"percent:{content}"] == one.percent
                assert found[f"attempts_count:{content}"] == one.attempts
            assert (found["total_score"], found["total_max_score"]) == (
                total.score,
                total.max_score,
            )
            assert (found["total_percent"], found["attempts"]) == (total.percent, row.attempts)
            assert (found["last_updated"] is None) == (row.updated_ms is None)
        for content in contents:
            metadata = table.schema.field(f"score:{content}").metadata or {}
            name = names.name(content)
            assert metadata.get(b"name") == (None if name is None else name.encode())

    def test_is_in_groups_of_rows(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(parquet_table, "GROUP_CELLS", 100)
        drawn = [ReportRow("c", "b", f"u{n:03}", {"a": AssessmentScore(n)}, n) for n in range(100)]
        data = io.BytesIO(written(ParquetTable(), drawn, Names()))
        file = pyarrow.parquet.ParquetFile(data)
        assert file.num_row_groups == 13
        assert file.read()["score:a"].to_pylist() == [float(n) for n in range(100)]


def row_key(row: ReportRow) -> tuple[str, str, str]:
    return row.course_id, row.batch_id, row.user_id


class Page(HTMLParser):
    """What a browser would see: tags with attributes, and the text."""

    def __init__(self, data: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text: list[str] = []
        self.feed(data)
        self.close()

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "rect", "line"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: Any) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


MARKUP = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "{title}",
    "&lt;",
    "</title>",
]


class TestPage:
    @examples(0.5)
    @given(learners, names)
    def test_is_whole_and_asks_nobody_for_anything(
        self, drawn: list[ReportRow], names: Names
    ) -> None:
        data = written(HtmlPage(), drawn, names).decode()
        page = Page(data)
        assert page.open == []
        known = {
            *("html", "head", "meta", "title", "style", "body", "main", "h1", "h2", "h3", "p"),
            *("section", "figure", "figcaption", "svg", "rect", "text", "line", "details", "div"),
            *("summary", "table", "thead", "tbody", "tr", "th", "td", "bdi", "small"),
        }
        assert {tag for tag, _ in page.tags} <= known
        attributes = {name for _, attrs in page.tags for name in attrs}
        assert not attributes & {"src", "href", "srcset", "action", "data", "style"}
        assert not any(name.startswith("on") for name in attributes)
        assert "url(" not in data.partition("</style>")[0]
        assert "://" not in data.partition("</style>")[0]

    @pytest.mark.parametrize("text", MARKUP)
    def test_shows_every_text_as_it_is(self, text: str) -> None:
        drawn = [ReportRow(text, text, text, {text: AssessmentScore(1, 2, 1)}, None)]
        named = [ReportRow("c", "b", "u", {"id": AssessmentScore(1, 2, 1)}, None)]
        page = Page(written(HtmlPage(), drawn, Names()).decode())
        assert page.text.count(text) == 5
        assert text in Page(written(HtmlPage(), named, Names({"id": text})).decode()).text
        assert not {tag for tag, _ in page.tags} & {"script", "img"}

    def test_tells_not_attempted_from_0_and_counts_all(self) -> None:
        drawn = [
            ReportRow("c", "b", "u1", {"a": AssessmentScore(0.0, 4.0, 1)}, 1_760_000_000_000),
            ReportRow("c", "b", "u2", {"a": AssessmentScore(4.0, 4.0, 2)}, None),
            ReportRow("c", "b", "u3", {"z": AssessmentScore(1.0, None, 1)}, None),
        ]
        page = Page(written(HtmlPage(), drawn, Names()).decode())
        text = " ".join(page.text)
        assert "2 of 3 have attempted, mean 50.0 %" in text
        assert "0 of 4" in text
        assert "1 of unknown" in text
        assert "not attempted" in text
        labels = [attrs["aria-label"] for tag, attrs in page.tags if tag == "svg"]
        assert labels[1] == "Learners by percent of the maximum. 0-9 %: 1, 90-100 %: 1"
        scopes = {attrs.get("scope") for tag, attrs in page.tags if tag == "th"}
        assert scopes == {"row", "col"}


class TestFileNames:
    @given(any_text, any_text)
    @example(".", "..")
    @example("", "%")
    @example("a" * 65_000, "a" * 65_001)
    def test_are_no_paths_and_apart_where_the_ids_are(self, one: str, other: str) -> None:
        found = file_name(one)
        assert not {"/", "\\", "\0"} & set(found)
        assert found not in ("", ".", "..")
        assert not found.startswith(".")
        assert len(found) <= 120
        assert (found == file_name(other)) == (one == other)
