"""`report` on the embedded store: its files, and one line for everything that is wrong."""

from __future__ import annotations

import csv
import io
import os
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest

from group_scores.reports import files
from group_scores.reports.files import replacing
from group_scores.reports.names import read_names
from group_scores.scores import ActivityKey
from group_scores.stores import StoreConfig, open_store
from tests.api_client import GroupService, Said
from tests.command_line import refused, succeed
from tests.values import update

STORE = ("report", "--store", "sqlite:scores.db")
ONE = (*STORE, "--course", "do_1", "--batch", "b1")
CSV = ("--format", "csv", "--out")
T_US = 1_760_000_000_123_000


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder with a store of two course batches, and files of names."""
    monkeypatch.chdir(tmp_path)
    store = open_store(StoreConfig("sqlite:scores.db"))
    first, second = {"score:a": 1.5, "max_score:a": 2.0, "attempts_count:a": 3.0}, {"score:=b": 0.0}
    for key, values in (
        (ActivityKey("do_1", "u2", "b1"), first),
        (ActivityKey("do_1", "=u1", "b1"), second),
        (ActivityKey("do_1", "u1", "../b2"), first),
    ):
        assert store.write_aggregates([update(key, values, T_US)]) == [None]
    store.close()
    (tmp_path / "names.json").write_text('{"a": "First, quiz", "=b": "@second"}')
    (tmp_path / "bad.json").write_text('{"a": 1}')
    (tmp_path / "names.csv").write_text('\ufeffid,name\r\na,"First, quiz"\r\n\r\n=b,@second\r\n')
    (tmp_path / "bad.csv").write_text("a,b,c\n")
    (tmp_path / "twice.csv").write_text("a,b\na,c\n")
    (tmp_path / "open.csv").write_text('a,"b\n')
    (tmp_path / "latin.csv").write_bytes(b"a,\xe9\n")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "x.csv").mkdir()
    return tmp_path


def lines_of(text: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(text, newline=""), strict=True))


HEAD = [
    *("course_id", "batch_id", "user_id"),
    *("score:=b", "max_score:=b", "percent:=b", "attempts_count:=b"),
    *("score:a", "max_score:a", "percent:a", "attempts_count:a"),
    *("attempts", "total_score", "total_max_score", "total_percent", "last_updated"),
]
WHEN = "2025-10-09T08:53:20.123Z"
LINES = [
    HEAD,
    ["do_1", "b1", "'=u1", "0", "", "", "", "", "", "", "", "", "", "", "", WHEN],
    ["do_1", "b1", "u2", "", "", "", "", "1.5", "2", "75", "3", "3", "1.5", "2", "75", WHEN],
]


def test_prints_a_course_batch() -> None:
    done = succeed(*ONE, *CSV, "-")
    assert lines_of(done.out) == LINES
    assert done.err == ""
    assert succeed(*ONE, "--format", "html", "--out", "-").out.startswith("<!DOCTYPE html>")


def test_writes_a_file_over_an_older_one(folder: Path) -> None:
    (folder / "scores.csv").write_text("older")
    done = succeed(*ONE, *CSV, "scores.csv")
    assert done == (0, "", "2 learners in scores.csv\n")
    data = (folder / "scores.csv").read_bytes()
    assert data.startswith(b"\xef\xbb\xbf")
    assert lines_of(data.decode("utf-8-sig")) == LINES


def test_writes_a_folder_with_a_file_a_course_batch_and_no_path_of_an_id(folder: Path) -> None:
    done = succeed(*STORE, "--format", "parquet", "--out", "reports")
    assert done == (0, "", "3 learners in 2 files in reports\n")
    found = sorted(path for path in (folder / "reports").rglob("*") if path.is_file())
    assert [str(path.relative_to(folder)) for path in found] == [
        "reports/do_1/%2E.%2Fb2.parquet",
        "reports/do_1/b1.parquet",
    ]
    assert pyarrow.parquet.read_table(found[0])["batch_id"].to_pylist() == ["../b2"]


@pytest.mark.parametrize("name", ["names.json", "names.csv"])
def test_puts_names_over_the_columns(name: str) -> None:
    head = lines_of(succeed(*ONE, *CSV, "-", "--names", name).out)[0]
    assert head[3] == "score:@second (=b)"
    assert head[7] == "score:First, quiz (a)"
    assert read_names(name).by_id == {"a": "First, quiz", "=b": "@second"}


def content_name(path: str) -> Said:
    if path.endswith("/content/v3/read/a?fields=name"):
        return Said(body=b'{"result": {"content": {"name": "=HYPERLINK(\\"http://x\\")<b>"}}}')
    return Said(404, b'{"responseCode": "RESOURCE_NOT_FOUND"}')


@pytest.mark.parametrize("beam", [(), ("--direct_num_workers", "1")])
def test_has_names_of_a_content_service(beam: tuple[str, ...], folder: Path) -> None:
    with GroupService(content_name).serving() as service:
        words = (*ONE, "--content-service", service.url, "--out", "x")
        succeed(*words, "--format", "csv", *beam)
        succeed(*words, "--format", "html", *beam)
        assert len(service.asked) == 2 * 2
    head = lines_of((folder / "x/do_1/b1.csv").read_text("utf-8-sig"))[0]
    assert (head[3], head[7]) == ("score:=b", 'score:=HYPERLINK("http://x")<b> (a)')
    page = (folder / "x/do_1/b1.html").read_text()
    assert "=HYPERLINK(&quot;http://x&quot;)&lt;b&gt;" in page
    assert "<b>" not in page


def test_a_content_service_that_is_away_fails_no_report(folder: Path) -> None:
    with GroupService(content_name).serving() as service:
        url = service.url
    done = succeed(*ONE, *CSV, "x.csv", "--content-service", url, "--names", "names.json")
    assert done == (0, "", "2 learners in x.csv\n")  # all have names
    done = succeed(*ONE, *CSV, "x.csv", "--content-service", url)
    assert done.code == 0
    said, told = done.err.splitlines()
    assert "ids stand for names of assessments: the content service is away" in said
    assert told == "2 learners in x.csv"
    assert lines_of((folder / "x.csv").read_text("utf-8-sig")) == LINES


@pytest.mark.parametrize("kind", ["csv", "parquet", "html"])
def test_is_the_same_as_a_pipeline(kind: str, folder: Path) -> None:
    words = (*STORE, "--format", kind, "--names", "names.json", "--out")
    plain = succeed(*words, "plain")
    by_beam = succeed(*words, "beam", "--direct_num_workers", "1")
    assert by_beam.err == plain.err.replace("plain", "beam")
    files = contents_of(folder / "plain")
    assert len(files) == 2
    assert contents_of(folder / "beam") == files


def contents_of(folder: Path) -> dict[str, bytes]:
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def test_takes_a_folder_that_ends_like_a_file(folder: Path) -> None:
    succeed(*ONE, *CSV, "folder/x.csv")
    assert (folder / "folder/x.csv/do_1/b1.csv").is_file()


WRONG: list[tuple[tuple[str, ...], str]] = [
    (("report",), "--store"),
    ((*ONE, "--out", "x.csv"), "--format"),
    ((*ONE, "--format", "csv"), "--out"),
    ((*ONE, "--format", "xls", "--out", "x"), "'xls' is not one of 'csv', 'parquet', 'html'"),
    ((*ONE, "--format", "parquet", "--out", "-"), "--out - with parquet"),
    ((*ONE, "--format", "parquet", "--out", "x.csv"), "two formats"),
    ((*ONE, *CSV, "no/x.csv"), "the folder no does not exist; make it first"),
    ((*ONE, *CSV, "scores.db"), "scores.db cannot be written: Not a directory"),
    ((*ONE, *CSV, "scores.db/x"), "scores.db/x cannot be written: Not a directory"),
    ((*ONE, *CSV, "scores.db/x.csv"), "the folder scores.db does not exist"),
    ((*ONE, *CSV, f"{'x' * 300}.csv"), "File name too long"),
    ((*ONE, *CSV, ""), "--out has no value"),
    ((*STORE, *CSV, "x.csv"), "has 2 course batches, and --out x.csv takes one"),
    ((*STORE, *CSV, "-"), "has 2 course batches, and --out - takes one"),
    ((*STORE, "--course", "do_2", *CSV, "x.csv"), "no learner of course 'do_2' in sqlite:scores"),
    ((*STORE, "--batch", "b9", *CSV, "x"), "no learner of batch 'b9'"),
    ((*ONE, *CSV, "x.csv", "--names", "none.json"), "--names none.json cannot be read: No such"),
    ((*ONE, *CSV, "x.csv", "--names", "folder/x.csv"), "cannot be read: Is a directory"),
    ((*ONE, *CSV, "x.csv", "--names", "names.txt"), "name a .json file"),
    ((*ONE, *CSV, "x.csv", "--names", "bad.json"), "Expected `str`, got `int`"),
    ((*ONE, *CSV, "x.csv", "--names", "bad.csv"), "line 1 has not the two cells"),
    ((*ONE, *CSV, "x.csv", "--names", "twice.csv"), "line 2 names 'a' again"),
    ((*ONE, *CSV, "x.csv", "--names", "open.csv"), "open.csv, line 1: unexpected end"),
    ((*ONE, *CSV, "x.csv", "--names", "latin.csv"), "is not UTF-8"),
    ((*ONE, *CSV, "x.csv", "--content-service", "h:9000"), "--content-service h:9000: write http"),
    ((*ONE, *CSV, "x.csv", "--content-service", "http://u:p@h"), "no credentials in an address"),
    ((*ONE, *CSV, "x.csv", "--groups", "groups.json"), "--groups without --group"),
    ((*ONE, *CSV, "x.csv", "--group", "g"), "--group without --groups"),
    ((*STORE, *CSV, "x", "--groups", "sample", "--group", "g"), "--group without --course"),
    ((*ONE, *CSV, "x.csv", "--groups", "sample", "--group", "g"), "no such group in sample"),
    ((*ONE, *CSV, "x.csv", "--groups", "none.json", "--group", "g"), "cannot be read: No such"),
    ((*ONE, *CSV, "x.csv", "--groups", "bad.json", "--group", "g"), "is no file of groups"),
    ((*ONE, *CSV, "x.csv", "--groups", "ftp://h", "--group", "g"), "write http(s)://BASE"),
    ((*ONE, *CSV, "x.csv", "--groups", "http://u:p@h", "--group", "g"), "no credentials in an"),
    (
        (*ONE, *CSV, "x", "--groups", "sample", "--group", "sample", "--direct_num_workers", "1"),
        "--group with options of Beam",
    ),
    ((*ONE, *CSV, "x.csv", "--direct_num_workers", "1"), "with options of Beam: name a folder"),
    ((*ONE, *CSV, "x", "--direct_num_worker", "1"), "did you mean '--direct_num_workers'?"),
    ((*STORE, "--batch", "b9", *CSV, "x", "--direct_num_workers", "1"), "no learner of batch"),
    ((*ONE, *CSV, "x", "more"), "unexpected 'more'"),
    (("report", "--store", "sqlite:no.db", *CSV, "x"), "there is no such file"),
    (("report", "--store", "sqlite:names.csv", *CSV, "x"), "not a database"),
    (("report", "--store", "casandra://h/k", *CSV, "x"), "did you mean 'cassandra'?"),
    ((*ONE, *CSV, "x.csv", "--formt", "csv"), "did you mean '--format'?"),
]


@pytest.mark.parametrize(("words", "what"), WRONG, ids=[" ".join(w)[:90] for w, _ in WRONG])
def test_what_is_wrong_is_one_line_that_names_it(
    words: tuple[str, ...], what: str, folder: Path
) -> None:
    assert what in refused(*words)
    assert not (folder / "x.csv").exists()
    assert not (folder / "x").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written_is_said_before_the_read(folder: Path) -> None:
    (folder / "folder").chmod(0o500)
    line = refused(*ONE, *CSV, "folder/y.csv")
    (folder / "folder").chmod(0o700)
    assert "Permission denied" in line


def test_leaves_the_older_file_where_it_fails_half_way(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = folder / "scores.csv"
    path.write_text("older")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    assert "scores.csv cannot be written: No space" in refused(*ONE, *CSV, "scores.csv", code=1)
    assert path.read_text() == "older"
    assert not list(folder.glob(".group-scores-*"))


def test_says_which_folder_is_full_where_rows_do_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", "/dev/null")
    monkeypatch.setattr("tempfile.tempdir", "/dev/null")
    monkeypatch.setattr("group_scores.runners.report.Spill", small_spill)
    assert "name another one in TMPDIR" in refused(*ONE, *CSV, "x.csv", code=1)


def small_spill() -> Any:
    from group_scores.reports.spill import Spill

    return Spill(run_bytes=1)


def test_replaces_what_a_link_names(folder: Path) -> None:
    (folder / "link.csv").symlink_to("real.csv")
    with replacing(folder / "link.csv") as file:
        file.write(b"x")
    assert (folder / "real.csv").read_bytes() == b"x"
    assert (folder / "link.csv").is_symlink()
