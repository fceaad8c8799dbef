"""Files of JSON lines: every line once, whole, with the byte at which it begins."""

from __future__ import annotations

import gzip
import io
import itertools
import os
import sys
from pathlib import Path

import apache_beam as beam
import pytest
from apache_beam.testing.util import assert_that, equal_to
from hypothesis import given
from hypothesis import strategies as st

from group_scores.pipelines.sources import FileSource, parse_source
from group_scores.scores import SourceRecord
from group_scores.stores import AddressError
from group_scores.transforms import ReadFromFiles, files
from group_scores.transforms.files import count_lines, file_parts, matching_files, read_lines

END = 2**63 - 1
LINES = st.lists(
    st.tuples(
        st.one_of(
            st.binary(max_size=12).map(lambda b: b.replace(b"\n", b"n").replace(b"\r", b"r")),
            st.sampled_from([b"", b" \t", b"{}", b"\xef\xbb\xbf{}", b"\x00", b"a" * 300_000]),
        ),
        st.sampled_from([b"\n", b"\r\n"]),
    ),
    max_size=12,
)

PACKED = gzip.compress(b"{}\n", mtime=0)


def expected(data: bytes) -> list[tuple[bytes, int]]:
    """The lines of a file as one sees them, (line, where it begins), the slow way."""
    found, position = [], 0
    for line in data.split(b"\n"):
        text = line
        if position == 0 and text.startswith(b"\xef\xbb\xbf"):
            text = text[3:]
        while text[-1:] == b"\r":
            text = text[:-1]
        if text.strip():
            found.append((text, position))
        position += len(line) + 1
    return found


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One file, written anew by each example."""
    return tmp_path_factory.mktemp("files") / "scratch.jsonl"


@given(lines=LINES, ended=st.booleans(), cuts=st.lists(st.integers(0, 300_100), max_size=6))
def test_every_line_is_read_once_wherever_the_file_is_cut(
    scratch: Path, lines: list[tuple[bytes, bytes]], ended: bool, cuts: list[int]
) -> None:
    data = b"".join(text + end for text, end in lines)
    data = data if ended else data.rstrip(b"\r\n")
    scratch.write_bytes(data)
    edges = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    parts = itertools.pairwise(edges)
    records = [one for start, stop in parts for one in read_lines((str(scratch), start, stop))]
    assert [(one.value, one.offset) for one in records] == expected(data)
    assert all((one.topic, one.partition) == (str(scratch), None) for one in records)
    assert count_lines(str(scratch)) >= len(records)


@given(lines=LINES)
def test_what_is_packed_reads_as_what_is_not(
    scratch: Path, lines: list[tuple[bytes, bytes]]
) -> None:
    data = b"".join(text + end for text, end in lines)
    packed = scratch.with_suffix(".jsonl.gz")
    # Two members, as `cat a.gz b.gz` makes them.
    packed.write_bytes(
        gzip.compress(data[: len(data) // 2]) + gzip.compress(data[len(data) // 2 :])
    )
    (part,) = file_parts(str(packed))
    assert [(one.value, one.offset) for one in read_lines(part)] == expected(data)


class TestParts:
    @given(size=st.integers(0, 3000))
    def test_hold_every_byte_once(self, scratch: Path, size: int) -> None:
        scratch.write_bytes(b"x" * size)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(files, "_SMALLEST_PART", 7)
            patch.setattr(files, "_LARGEST_PART", 100)
            parts = file_parts(str(scratch))
        edges = [0, *(stop for _, _, stop in parts)]
        assert [(start, stop) for _, start, stop in parts] == list(itertools.pairwise(edges))
        assert edges[-1] == size
        assert all(stop - start <= 100 for _, start, stop in parts)

    def test_are_several_where_several_workers_can_share_a_file(self, tmp_path: Path) -> None:
        large = tmp_path / "large.jsonl"
        with large.open("wb") as file:
            file.truncate(100 << 20)
        assert 16 <= len(file_parts(str(large))) <= 32

    def test_of_what_can_only_be_read_through_are_one(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "pipe.jsonl")
        packed = tmp_path / "large.jsonl.gz"
        with packed.open("wb") as file:
            file.truncate(100 << 20)
        for path in (tmp_path / "pipe.jsonl", packed):
            assert file_parts(str(path)) == [(str(path), 0, END)]


class TestMatching:
    @pytest.fixture(autouse=True)
    def folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        home = tmp_path / "home [1]"  # what a glob would take for a class of characters
        (home / "sub").mkdir(parents=True)
        for name in ("b.jsonl", "a.jsonl", "c.jsonl.gz", "x[1].jsonl", "x1.jsonl", "sub/d.jsonl"):
            (home / name).write_bytes(b"{}\n")
        monkeypatch.chdir(home)
        return home

    @pytest.mark.parametrize(
        ("pattern", "names"),
        [
            ("a.jsonl", ["a.jsonl"]),
            ("?.jsonl*", ["a.jsonl", "b.jsonl", "c.jsonl.gz"]),
            ("x[1].jsonl", ["x[1].jsonl"]),
            ("x[[]*", ["x[1].jsonl"]),
            ("x[0-9].jsonl", ["x1.jsonl"]),
            ("s*", []),
            ("**/d.jsonl", ["sub/d.jsonl"]),
            ("sub/../a.jsonl", ["a.jsonl"]),
            ("none*", []),
        ],
    )
    def test_finds_files_in_their_order(self, folder: Path, pattern: str, names: list[str]) -> None:
        found = matching_files(pattern)
        assert found == [str(folder / name) for name in names]

    def test_tells_what_would_be_read_as_an_event(self) -> None:
        source = FileSource("*.jsonl")
        assert source.reads("a.jsonl")
        assert source.reads("sub/../later.jsonl")  # is not there yet, and would be next time
        assert not source.reads("sub/later.jsonl")
        assert not source.reads("kafka://h/a.jsonl")
        os.symlink("a.jsonl", "link")
        assert FileSource("link").reads("a.jsonl")
        assert not FileSource("-").reads("-")


class TestSource:
    def test_counts_lines_where_that_is_quick(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "a.jsonl").write_bytes(b"{}\n{}")
        (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(b"{}\n"))
        assert parse_source(f"{tmp_path}/*").check(10.0) == 3
        assert parse_source("-").check(10.0) is None
        monkeypatch.setattr("group_scores.pipelines.sources._COUNTED_PACKED_BYTES", 1)
        assert parse_source(f"{tmp_path}/*").check(10.0) is None

    def test_does_not_take_anything_out_of_a_pipe_before_the_run(self, tmp_path: Path) -> None:
        read, write = os.pipe()
        os.write(write, b"{}\n")
        os.close(write)
        source = parse_source(f"/dev/fd/{read}")
        assert source.check(10.0) is None
        assert os.read(read, 10) == b"{}\n"
        os.close(read)

    @pytest.mark.parametrize(
        ("name", "data", "what"),
        [
            ("cut.jsonl.gz", gzip.compress(b"{}\n" * 9000, mtime=0)[:-20], "is cut off"),
            ("crc.jsonl.gz", PACKED[:-8] + b"12345678", "not good gzip"),
            ("plain.jsonl.gz", b"{}\n", "not good gzip"),
            (
                "mangled.jsonl.gz",
                PACKED[:10] + b"\xff" * 99,
                "not good gzip",
            ),
        ],
    )
    def test_tells_a_broken_file_at_the_start_and_in_the_run(
        self, tmp_path: Path, name: str, data: bytes, what: str
    ) -> None:
        path = tmp_path / name
        path.write_bytes(data)
        with pytest.raises(AddressError, match=what):
            parse_source(str(path)).check(10.0)
        with pytest.raises(AddressError, match=what):
            list(read_lines((str(path), 0, END)))

    def test_tells_a_file_that_is_gone_by_now(self, tmp_path: Path) -> None:
        with pytest.raises(AddressError, match="cannot be read: No such file"):
            list(read_lines((str(tmp_path / "gone.jsonl"), 0, END)))


class TestStandardInput:
    def test_is_read_like_a_file(self, monkeypatch: pytest.MonkeyPatch) -> None:
        data = b'{"a":1}\r\n\n{"b":2}'
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
        with beam.Pipeline() as pipeline:
            assert_that(
                pipeline | ReadFromFiles("-"),
                equal_to(
                    [
                        SourceRecord(b'{"a":1}', "-", None, 0),
                        SourceRecord(b'{"b":2}', "-", None, 10),
                    ]
                ),
            )

    def test_may_be_closed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sys, "stdin", None)
        with pytest.raises(AddressError, match="standard input is closed"):
            list(read_lines(("-", 0, END)))


class TestTransform:
    def test_reads_all_files_in_parts(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(files, "_SMALLEST_PART", 10)
        texts = [b'{"n":%d}' % n for n in range(50)]
        (tmp_path / "a.jsonl").write_bytes(b"\n".join(texts[:30]))
        (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(b"\n".join(texts[30:])))
        (tmp_path / "empty.jsonl").touch()
        assert len(file_parts(str(tmp_path / "a.jsonl"))) > 10
        with beam.Pipeline() as pipeline:
            values = pipeline | ReadFromFiles(f"{tmp_path}/*.jsonl*") | beam.Map(lambda r: r.value)
            assert_that(values, equal_to(texts))

    def test_reads_nothing_from_an_empty_file(self, tmp_path: Path) -> None:
        (tmp_path / "empty.jsonl").touch()
        with beam.Pipeline() as pipeline:
            assert_that(pipeline | ReadFromFiles(f"{tmp_path}/empty.jsonl"), equal_to([]))

    def test_wants_a_file(self, tmp_path: Path) -> None:
        with pytest.raises(AddressError, match="no file"):
            beam.Pipeline() | ReadFromFiles(f"{tmp_path}/*.jsonl")
