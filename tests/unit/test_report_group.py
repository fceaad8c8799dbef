"""`report --group` on the embedded store: who is in it, and what is said where it cannot be."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest

from group_scores.scores import ActivityKey
from group_scores.stores import StoreConfig, open_store
from tests.api_client import GroupService, Said, group_answer, member, write_groups
from tests.command_line import refused, succeed
from tests.values import update

T_US = 1_760_000_000_123_000
STORE = ("report", "--store", "sqlite:scores.db", "--course", "do_1")
GROUP = (*STORE, "--groups", "groups.json", "--group", "g/1")
CSV = ("--format", "csv", "--out")
MEMBERS = [
    member("u1", name="Zoë"),
    member("=u2", name="=1+1", role="admin"),
    member("u3"),
    member("u4", name="aaron"),
    member("u5", status="inactive", name="Left"),
]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder with a store and a file of groups: one of the members is in two batches."""
    monkeypatch.chdir(tmp_path)
    store = open_store(StoreConfig("sqlite:scores.db"))
    half = {"score:a": 1.0, "max_score:a": 2.0, "attempts_count:a": 3.0}
    for key, values in (
        (ActivityKey("do_1", "u1", "b1"), half),
        (ActivityKey("do_1", "u1", "b2"), {"score:b": 0.0, "max_score:b": 4.0}),
        (ActivityKey("do_1", "=u2", "b1"), half),
        (ActivityKey("do_1", "u5", "b1"), half),
        (ActivityKey("do_1", "stranger", "b1"), {"score:z": 1.0}),
        (ActivityKey("do_2", "u3", "b1"), {"score:z": 1.0}),
    ):
        assert store.write_aggregates([update(key, values, T_US)]) == [None]
    store.close()
    left = [member("u5", status="inactive")]
    write_groups(tmp_path / "groups.json", {"g/1": MEMBERS, "empty": [], "left": left})
    return tmp_path


def lines_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text, newline=""), strict=True))


def places(text: str) -> list[tuple[str, ...]]:
    wanted = ("name", "role", "user_id", "batch_id", "total_percent")
    return [tuple(line[name] for name in wanted) for line in lines_of(text)]


BY_NAME = [
    ("'=1+1", "admin", "'=u2", "b1", "50"),
    ("aaron", "member", "u4", "", ""),
    ("Zoë", "member", "u1", "b1", "50"),
    ("Zoë", "member", "u1", "b2", "0"),
    ("", "member", "u3", "", ""),
]


def test_has_a_row_for_each_active_member_and_batch_and_one_for_who_is_in_none() -> None:
    done = succeed(*GROUP, *CSV, "-")
    assert places(done.out) == BY_NAME
    lines = lines_of(done.out)
    assert list(lines[0])[:7] == [
        *("course_id", "batch_id", "user_id", "group_id", "name", "role"),
        "score:a",
    ]
    assert {line["group_id"] for line in lines} == {"g/1"}
    assert "score:z" not in lines[0]  # of no member
    assert [line["score:b"] for line in lines] == ["", "", "", "0", ""]
    assert done.err == ""


def test_has_one_batch_where_it_is_chosen() -> None:
    found = places(succeed(*GROUP, "--batch", "b2", *CSV, "-").out)
    assert [(user, batch) for _, _, user, batch, _ in found] == [
        *(("'=u2", ""), ("u4", ""), ("u1", "b2"), ("u3", "")),
    ]


def test_writes_a_file_or_a_folder_and_says_how_many_are_enrolled(folder: Path) -> None:
    done = succeed(*GROUP, *CSV, "group.csv")
    assert done == (0, "", "4 members, 2 of them enrolled, in group.csv\n")
    assert places((folder / "group.csv").read_text("utf-8-sig")) == BY_NAME
    succeed(*GROUP, "--format", "parquet", "--out", "reports")
    assert (folder / "reports/g%2F1/do_1.parquet").is_file()


def test_parquet_has_null_for_what_is_not_known() -> None:
    succeed(*GROUP, "--format", "parquet", "--out", "group.parquet")
    found = pyarrow.parquet.read_table("group.parquet").to_pylist()
    assert [(one["name"], one["batch_id"], one["score:a"]) for one in found] == [
        *(("=1+1", "b1", 1.0), ("aaron", None, None), ("Zoë", "b1", 1.0), ("Zoë", "b2", None)),
        (None, None, None),
    ]


def test_page_lists_who_is_not_enrolled_and_counts_them_in_no_distribution() -> None:
    page = succeed(*GROUP, "--format", "html", "--out", "-").out
    assert "4 members, 2 of them not enrolled, 2 assessments" in page
    assert "2 of 3 have attempted, mean 50.0 %" in page
    assert page.count("<td>not enrolled</td>") == 2
    assert "<bdi>Zoë</bdi> <small><bdi>u1</bdi></small>" in page
    assert "Scores of group <bdi>g/1</bdi> in <bdi>do_1</bdi></h1>" in page


def test_a_course_that_none_is_in_has_every_member(folder: Path) -> None:
    words = ("report", "--store", "sqlite:scores.db", "--course", "do_9", *GROUP[5:])
    done = succeed(*words, *CSV, "x.csv")
    assert "4 members, 0 of them enrolled" in done.err
    assert len(lines_of((folder / "x.csv").read_text("utf-8-sig"))) == 4


@pytest.mark.parametrize(
    ("group", "what"),
    [
        ("g1", "--group g1: there is no such group in groups.json"),
        ("empty", "the group 'empty' of groups.json has no active member; nothing was written"),
        ("left", "the group 'left' of groups.json has no active member"),
    ],
)
def test_a_group_that_has_nobody_is_said(group: str, what: str, folder: Path) -> None:
    assert what in refused(*GROUP[:-1], group, *CSV, "x.csv")
    assert not (folder / "x.csv").exists()


class TestGroupService:
    def by_service(self, url: str) -> tuple[str, ...]:
        return (*STORE, "--groups", url, "--group", "g/1")

    def test_gives_the_same_and_gets_the_token(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("GROUP_SERVICE_TOKEN", "of-an-analyst")
        with GroupService(lambda _: group_answer(*MEMBERS)).serving() as service:
            assert places(succeed(*self.by_service(service.url), *CSV, "-").out) == BY_NAME
            [(path, headers)] = service.asked
        assert path == "/api/private/v1/group/read/g%2F1?fields=members"
        assert headers["x-authenticated-user-token"] == "of-an-analyst"

    @pytest.mark.parametrize(
        ("said", "what", "code"),
        [
            (Said(404), "--group g/1: there is no such group in http://", 2),
            (Said(401), "set GROUP_SERVICE_TOKEN in the environment", 2),
            (Said(403), "does not let this caller read the group 'g/1'", 2),
            (Said(500), "the group service answers 500; nothing was written", 1),
            (Said(503), "the group service answers 503; nothing was written", 1),
            (Said(body=b"<html>"), "the group service answers what is no group", 1),
            (Said(302, location="/"), "the group service answers 302", 1),
        ],
    )
    def test_that_gives_none_is_one_line(
        self, said: Said, what: str, code: int, folder: Path
    ) -> None:
        with GroupService(lambda _: said).serving() as service:
            assert what in refused(*self.by_service(service.url), *CSV, "x.csv", code=code)
        assert not (folder / "x.csv").exists()

    def test_that_is_away_or_slow_is_one_line(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with GroupService(lambda _: Said(wait_s=0.5)).serving() as service:
            monkeypatch.setattr("group_scores.api.read_group._TIMEOUT_S", 0.1)
            line = refused(*self.by_service(service.url), *CSV, "x.csv", code=1)
            assert "the group service did not answer in 0.1 s; nothing was written" in line
        line = refused(*self.by_service(service.url), *CSV, "x.csv", code=1)
        assert "the group service is away" in line or "did not answer" in line


def test_the_sample_group_is_there_for_the_samples(folder: Path) -> None:
    words: Any = (*STORE, "--groups", "sample", "--group", "sample", *CSV, "-")
    found = lines_of(succeed(*words).out)
    sample = json.loads((Path(__file__).parents[2] / "api/samples/group.json").read_text())[
        "groups"
    ][0]["members"]
    active = {one["userId"] for one in sample if one["status"] == "active"}
    assert {line["user_id"] for line in found} == active


def test_reads_no_table_as_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    def scan(*_: object) -> None:
        pytest.fail("a group is read by key")

    monkeypatch.setattr("group_scores.stores.sqlite.SqliteStore.scan", scan)
    assert places(succeed(*GROUP, *CSV, "-").out) == BY_NAME
