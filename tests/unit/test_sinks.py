"""Files that messages are appended to: safe when written, whole lines, and no trace of a check."""

from __future__ import annotations

import os
import stat
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from group_scores.stores import AddressError, ServiceUnavailableError
from group_scores.transforms import sinks
from group_scores.transforms.progress import Progress, temporary_progress
from group_scores.transforms.sinks import FileSink, check_sink, open_sink, same_place


def append(path: Path, writer: int) -> None:
    for number in range(20):
        FileSink(str(path)).write([b"%d %d %s" % (writer, number, b"x" * 5000)] * 3)


class TestFile:
    def test_appends_lines(self, tmp_path: Path) -> None:
        path = tmp_path / "letters.jsonl"
        for messages in ([b"a", b"b"], [], [b"c"]):
            open_sink(str(path)).write(messages)
        assert path.read_bytes() == b"a\nb\nc\n"

    def test_does_not_mix_the_lines_of_several_processes(self, tmp_path: Path) -> None:
        path = tmp_path / "letters.jsonl"
        with ProcessPoolExecutor(3) as pool:
            list(pool.map(append, [path] * 3, range(3)))
        lines = path.read_bytes().splitlines()
        assert len(lines) == 3 * 20 * 3
        assert {len(line.split()[2]) for line in lines} == {5000}

    def test_begins_a_line_after_half_a_line(self, tmp_path: Path) -> None:
        path = tmp_path / "letters.jsonl"
        path.write_bytes(b'a\n{"half')
        FileSink(str(path)).write([b"b"])
        assert path.read_bytes() == b'a\n{"half\nb\n'

    def test_leaves_no_half_line_where_the_disk_is_full(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = tmp_path / "letters.jsonl"
        sink = FileSink(str(path))
        sink.write([b"before"])

        def full(_: int) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(ServiceUnavailableError, match=r"letters.jsonl .*No space left"):
            sink.write([b"a", b"b"])
        assert path.read_bytes() == b"before\n"

    def test_is_on_the_disk_before_the_source_is_committed(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        synced: list[int] = []
        fsync = os.fsync
        monkeypatch.setattr(
            os, "fsync", lambda fd: synced.append(os.fstat(fd).st_size) or fsync(fd)
        )
        FileSink(str(tmp_path / "letters.jsonl")).write([b"123"])
        assert synced == [4]


class TestCheck:
    def test_leaves_no_trace(self, tmp_path: Path) -> None:
        old = tmp_path / "old.jsonl"
        old.write_bytes(b"a\n")
        for name in ("old.jsonl", "new.jsonl"):
            check_sink(str(tmp_path / name), 1.0)
        assert os.listdir(tmp_path) == ["old.jsonl"]
        assert old.read_bytes() == b"a\n"

    @pytest.mark.parametrize(
        ("name", "what"),
        [
            ("x.json", "ends in .jsonl"),
            ("x.jsonl.gz", "ends in .jsonl"),
            ("", "ends in .jsonl"),
            ("s3://bucket/x.jsonl", "not a place for messages"),
            ("no/x.jsonl", "folder .*/no does not exist; make it"),
            ("file/x.jsonl", "does not exist"),
            ("folder.jsonl", "cannot be written: Is a directory"),
            ("pipe.jsonl", "cannot be written: it is a pipe"),
            (f"{'x' * 300}.jsonl", "cannot be written: File name too long"),
            ("/proc/x.jsonl", "cannot be written"),
        ],
    )
    def test_names_what_is_wrong(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, what: str
    ) -> None:
        monkeypatch.chdir(tmp_path)
        (tmp_path / "folder.jsonl").mkdir()
        (tmp_path / "file").touch()
        os.mkfifo(tmp_path / "pipe.jsonl")
        with pytest.raises(AddressError, match=what):
            check_sink(name, 1.0)

    @pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
    def test_names_what_must_not_be_written(self, tmp_path: Path) -> None:
        (tmp_path / "old.jsonl").touch(mode=stat.S_IREAD)
        tmp_path.chmod(stat.S_IREAD | stat.S_IEXEC)
        for name in ("old.jsonl", "new.jsonl"):
            with pytest.raises(AddressError, match="Permission denied"):
                check_sink(str(tmp_path / name), 1.0)
        tmp_path.chmod(stat.S_IRWXU)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("a.jsonl", "./a.jsonl", True),
        ("a.jsonl", "b.jsonl", False),
        ("a.jsonl", "link.jsonl", True),
        ("kafka://h:1,g:1/t", "kafka://g:1/t?username=me", True),
        ("kafka://h:1/t", "kafka://h:1/u", False),
        ("kafka://h:1/t", "kafka://h:2/t", False),
        ("kafka://h:1/t", "t", False),
    ],
)
def test_two_addresses_may_be_one_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one: str, other: str, same: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.jsonl").touch()
    os.symlink("a.jsonl", "link.jsonl")
    assert same_place(one, other) is same
    assert same_place(other, one) is same


class TestProgress:
    def test_adds_up_what_each_process_has_read(self, tmp_path: Path) -> None:
        progress = Progress(str(tmp_path))
        progress.add(5)
        assert progress.read() == 0  # a file is not written for every event
        progress.write()
        (tmp_path / "4711").write_bytes(b"%020d" % 37)  # another process
        (tmp_path / "4712").write_bytes(b"")  # one that has only begun
        assert progress.read() == 42
        progress.add(1000)
        assert progress.read() == 1042

    def test_never_shows_less_than_before(self, tmp_path: Path) -> None:
        progress = Progress(str(tmp_path))
        seen = []
        for _ in range(3):
            progress.add(9)
            progress.write()
            seen.append(progress.read())
            (file,) = tmp_path.iterdir()
            assert len(file.read_bytes()) == 62
        assert seen == [9, 18, 27]

    def test_adds_up_ranges_and_what_was_split_off_from_them(self, tmp_path: Path) -> None:
        progress = Progress(str(tmp_path))
        assert progress.ranges() == (0.0, 0)
        progress.plan(3)
        assert progress.ranges() == (0.0, 3)
        progress.add_range()
        progress.add_range(0.25)
        (tmp_path / "4711").write_bytes(b"%020d %020d %020d" % (7, 750_000, 0))
        assert progress.ranges() == (2.0, 3)
        assert progress.read() == 7
        progress.add_range()
        progress.add_range()  # one that failed and was read again
        assert progress.ranges() == (3.0, 3)

    def test_counts_no_rows_of_what_is_read_beside(self, tmp_path: Path) -> None:
        beside = Progress(str(tmp_path), ranges_only=True)
        beside.add(1_000)
        beside.plan(2)
        beside.add_range()
        assert (beside.read(), beside.ranges()) == (0, (1.0, 2))

    def test_leaves_no_folder_while_a_worker_is_still_at_it(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
        rmdir = os.rmdir

        def late(*args: Any, **kwargs: Any) -> None:
            """The folder has been emptied and goes now; a worker still writes its count."""
            progress.write()
            rmdir(*args, **kwargs)

        with temporary_progress() as progress:
            progress.add(1)
            progress.write()
            monkeypatch.setattr(os, "rmdir", late)
        assert os.listdir(tmp_path) == []

    def test_needs_no_folder(self, tmp_path: Path) -> None:
        gone = Progress(str(tmp_path / "gone"))
        gone.add(500)
        gone.plan(3)
        assert (gone.read(), Progress().read()) == (0, 0)
        Progress().add(1)
        Progress().add_range()
        assert Progress().ranges() == (0.0, 0)


def test_a_topic_is_a_sink_too() -> None:
    assert type(sinks.open_sink("kafka://127.0.0.1:1/t")).__name__ == "KafkaSink"
