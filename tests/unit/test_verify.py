"""`verify`, and `run` in batch mode, over the attempts in a SQLite file."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import apache_beam as beam
import pytest

from group_scores.pipelines import sources
from group_scores.pipelines.sources import Gives
from group_scores.scores import ActivityAgg, ActivityKey, StoredAttempt
from group_scores.stores import (
    Selection,
    Store,
    StoreConfig,
    StoreFault,
    StoreRefusedError,
    open_store,
)
from group_scores.stores.sqlite import SqliteStore
from group_scores.transforms.elements import AttemptsPage, LearnerAttempts
from group_scores.transforms.progress import Progress
from tests.command_line import Done, invoke, refused, succeed
from tests.integration.pipeline_runs import Tables, differences

STORE = "sqlite:scores.db"
SOURCE = "cassandra://127.0.0.1:1/test"  # what `parse_source` is made to take for the file


def pages(t_us: int | None) -> Iterator[AttemptsPage]:
    """Yield the attempts of the file, a page for every three learners."""
    store = open_store(StoreConfig(STORE))
    try:
        at = t_us if t_us is not None else store.now_us()
        rows = list(store.scan("attempts", Selection()))
    finally:
        store.close()
    learners = [
        LearnerAttempts(ActivityKey(*key), list(map(_attempt, group)))
        for key, group in groupby(
            rows, lambda row: (row["course_id"], row["user_id"], row["batch_id"])
        )
    ]
    for start in range(0, len(learners), 3):
        yield AttemptsPage(at, learners[start : start + 3])


def _attempt(row: Any) -> StoredAttempt:
    return StoredAttempt(
        row["content_id"],
        row["attempt_id"],
        row["last_attempted_on"],
        row["total_score"],
        row["total_max_score"],
    )


@dataclass(frozen=True)
class Attempts:
    """A source of what the file holds; `taken_us` None is now."""

    taken_us: int | None = None
    gives: Gives = "attempts"
    streams: bool = False
    endless: bool = False
    selection: Selection = Selection()
    rows_s: float | None = None
    dead_letter: str = "dead-letter.jsonl"

    def read(self, retry_s: float, progress: Progress) -> beam.PTransform:
        read = beam.FlatMap(lambda _: pages(self.taken_us)).with_output_types(AttemptsPage)
        return beam.Impulse() | read

    def reads(self, sink: str) -> bool:
        return False

    def check(self, timeout_s: float) -> int | None:
        return None

    def check_store(self, store: Store) -> None: ...


@pytest.fixture(autouse=True)
def events(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The events that were scored into the file."""
    monkeypatch.chdir(tmp_path)
    words = ("--events", "300", "--seed", "61", "--to", "events.jsonl")
    succeed("simulate", *words)
    succeed("run", "--source", "events.jsonl", "--store", STORE)
    attempts_at(monkeypatch, None)
    return Path("events.jsonl").read_bytes().splitlines()


def attempts_at(monkeypatch: pytest.MonkeyPatch, taken_us: int | None) -> None:
    parse = sources.parse_source
    monkeypatch.setattr(
        sources,
        "parse_source",
        lambda text: Attempts(taken_us) if text == SOURCE else parse(text),
    )


def sql(statement: str, *values: object) -> None:
    with sqlite3.connect("scores.db") as db:
        assert db.execute(statement, values).rowcount > 0


def verify(*words: str) -> Done:
    return invoke("verify", "--source", SOURCE, "--store", STORE, *words)


def batch_run(*words: str) -> dict[str, int]:
    done = succeed("run", "--source", SOURCE, "--store", STORE, "--summary", "json", *words)
    found: dict[str, int] = json.loads(done.out)
    return found


def cells(where: str = "1") -> list[tuple[Any, ...]]:
    with sqlite3.connect("scores.db") as db:
        return list(
            db.execute(f"SELECT * FROM user_activity_agg_cell WHERE {where} ORDER BY 1,2,3,4,5")
        )


CELL = "activity_id = ? AND user_id = ? AND map = ? AND key = ?"


@pytest.fixture
def planted() -> set[tuple[str, str, str, str]]:
    """Every kind of drift once; (learner, kind, column, key) of each."""
    scores = cells("map = 'aggregates' AND key LIKE 'score:%'")
    gone, stale, undated, orphan = (scores[n] for n in (0, 7, 14, 21))
    sql(f"DELETE FROM user_activity_agg_cell WHERE {CELL}", gone[0], gone[1], "agg", gone[4])
    sql(
        f"UPDATE user_activity_agg_cell SET value = 99.5 WHERE {CELL}",
        *(stale[0], stale[1], "aggregates", stale[4]),
    )
    sql(
        f"DELETE FROM user_activity_agg_cell WHERE {CELL}",
        *(undated[0], undated[1], "agg_last_updated", undated[4]),
    )
    key = ("do_gone", "nobody", "cb:b")
    insert = "INSERT INTO user_activity_agg_cell VALUES (?, ?, ?, ?, ?, ?, ?)"
    sql(insert, *key, "agg", "score:do_x", 3, 5)
    sql(insert, *key, "agg_last_updated", "score:do_x", 3, 5)
    sql(insert, orphan[0], orphan[1], orphan[2], "agg", "max_score:do_deleted", 3, 5)
    sql(
        "UPDATE user_activity_agg_cell SET value = '[]' WHERE map = 'agg_details' AND user_id = ?",
        stale[1],
    )
    missing_lists = {
        (row[1], "missing", "agg_details", "")
        for row in cells("map = 'agg_details' AND value = '[]'")
    }
    return missing_lists | {
        (gone[1], "missing", "agg", gone[4]),
        (stale[1], "stale", "aggregates", stale[4]),
        (undated[1], "missing", "agg_last_updated", undated[4]),
        ("nobody", "orphaned", "agg", "score:do_x"),
        (orphan[1], "orphaned", "agg", "max_score:do_deleted"),
    }


def told(done: Done) -> set[tuple[str, str, str, str]]:
    reports = [json.loads(line) for line in done.out.splitlines()]
    return {
        (report["user_id"], one["kind"], one["column"], one["name"])
        for report in reports
        for one in report["differences"]
    }


class TestVerify:
    def test_finds_nothing_where_nothing_differs(self) -> None:
        before = cells()
        done = verify()
        assert (done.code, len(done.out.splitlines())) == (0, 1)
        assert done.out.endswith("nothing differs\n")
        assert verify("--format", "jsonl") == (0, "", "")
        assert cells() == before

    def test_finds_what_is_planted_and_only_that(
        self, planted: set[tuple[str, str, str, str]]
    ) -> None:
        before = cells()
        done = verify("--format", "jsonl")
        assert done.code == 3
        assert told(done) == planted
        assert cells() == before  # it has only looked

    def test_shows_a_person_what_and_where(self, planted: set[tuple[str, str, str, str]]) -> None:
        done = verify()
        assert done.code == 3
        for learner, kind, _, name in planted:
            assert any(
                learner in line and kind in line and (name or "agg_details") in line
                for line in done.out.splitlines()
            )
        assert "99.5" in done.out
        picture = done.out.partition("Orphaned")[2]
        assert "do_gone" in picture
        assert "█" in picture

    def test_repairs_and_leaves_orphans(self, planted: set[tuple[str, str, str, str]]) -> None:
        done = verify("--repair", "--format", "jsonl")
        assert told(done) == planted
        assert done.code == 0  # it was not asked to take out the orphans
        assert done.err.startswith("2 rows have scores without any attempt; --repair --prune takes")
        again = verify("--format", "jsonl")
        assert again.code == 3
        assert {kind for _, kind, _, _ in told(again)} == {"orphaned"}
        assert verify("--repair", "--prune").code == 0
        assert verify("--format", "jsonl") == (0, "", "")
        assert cells("user_id = 'nobody' AND value IS NOT NULL") == []

    def test_repairs_and_prunes_in_one(self, planted: set[tuple[str, str, str, str]]) -> None:
        done = verify("--repair", "--prune")
        assert done.code == 0
        assert f"{len({one[0] for one in planted})} rows repaired" in done.out
        assert verify().code == 0

    @pytest.mark.parametrize("column", ["agg", "aggregates"])
    def test_looks_at_repairs_and_prunes_the_same_maps(self, column: str) -> None:
        other = "aggregates" if column == "agg" else "agg"
        row = cells()[0][:3]
        insert = "INSERT INTO user_activity_agg_cell VALUES (?, ?, ?, ?, ?, ?, ?)"
        for name in ("agg", "aggregates", "agg_last_updated"):
            sql(insert, *row, name, "score:do_gone", 3, 5)
        for name in (column, "agg_last_updated"):
            sql(insert, *row, name, "score:do_alone", 3, 5)
        sql(insert, *row, other, "score:do_others", 3, 5)
        score = cells("map = 'agg' AND key LIKE 'score:%'")[0]
        sql(
            f"UPDATE user_activity_agg_cell SET value = 99 WHERE {CELL}",
            *score[:2],
            other,
            score[4],
        )
        before = cells(f"map = '{other}'")
        words = ("--agg-columns", column, "--format", "jsonl")
        assert told(verify(*words)) == {
            (row[1], "orphaned", column, "score:do_gone"),
            (row[1], "orphaned", column, "score:do_alone"),
        }
        assert verify(*words, "--repair", "--prune").code == 0
        assert verify(*words) == (0, "", "")
        assert cells(f"map = '{other}'") == before
        gone = "key IN ('score:do_gone', 'score:do_alone') AND value IS NOT NULL"
        assert {cell[3:5] for cell in cells(gone)} == {
            ("agg_last_updated", "score:do_gone"),
            (other, "score:do_gone"),
        }

    def test_what_is_newer_than_the_snapshot_is_no_difference(
        self, planted: set[tuple[str, str, str, str]], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As of a time before the rest was written, only the orphans are not newer."""
        attempts_at(monkeypatch, 10)
        orphans = {one for one in planted if one[1] == "orphaned"}
        assert told(verify("--format", "jsonl")) == orphans
        before = cells("write_us > 10")
        assert verify("--repair", "--prune").code == 0
        assert cells("write_us > 10") == before

    @pytest.mark.parametrize(
        ("words", "what"),
        [
            (("--prune",), "--prune goes with --repair"),
            (("--metrics", "scor"), "did you mean 'score'"),
            (("--format", "csv"), "'csv' is not one of"),
            (("--repiar",), "--repair"),
        ],
    )
    def test_refuses_in_one_line(self, words: tuple[str, ...], what: str) -> None:
        assert what in refused("verify", "--source", SOURCE, "--store", STORE, *words)

    def test_refuses_events_and_no_store(self) -> None:
        line = refused("verify", "--source", "events.jsonl", "--store", STORE)
        assert "events.jsonl gives events" in line
        assert "verify without --store" in refused("verify", "--source", SOURCE)
        assert "--source" in refused("verify", "--store", STORE)
        assert "no such file" in refused("verify", "--source", SOURCE, "--store", "sqlite:new.db")
        assert not Path("new.db").exists()


class TestBatchRun:
    def test_writes_nothing_where_nothing_differs(self) -> None:
        before = cells()
        counts = batch_run()
        assert list(counts) == [
            *("events", "dead_letters", "attempts_written", "attempts_unchanged"),
            *("aggregates_written", "aggregates_unchanged", "fields_ignored", "seconds"),
        ]
        assert counts["aggregates_written"] == 0
        assert counts["aggregates_unchanged"] == len({row[:3] for row in before})
        assert cells() == before

    def test_tells_a_person_what_is_of_this_mode(self) -> None:
        done = succeed("run", "--source", SOURCE, "--store", STORE)
        names = [line.rpartition("  ")[0].split("  ")[0] for line in done.err.splitlines()]
        assert [name.strip() for name in names] == [
            *("attempts read", "aggregates written", "aggregates unchanged", "dead letters"),
            "seconds",
        ]

    def test_gives_the_rows_of_streaming(self, events: list[bytes]) -> None:
        before = [(row[:5], row[5]) for row in cells("map <> 'agg_last_updated'")]
        sql("DELETE FROM user_activity_agg_cell")
        assert batch_run()["aggregates_unchanged"] == 0
        assert [(row[:5], row[5]) for row in cells("map <> 'agg_last_updated'")] == before
        assert differences(Tables.read(STORE), events) == []
        after = cells()
        assert batch_run()["aggregates_written"] == 0
        assert cells() == after

    def test_writes_what_differs_and_no_orphans(
        self, planted: set[tuple[str, str, str, str]]
    ) -> None:
        touched = {one[0] for one in planted if one[1] != "orphaned"}
        others = "user_id NOT IN ({})".format(", ".join(f"'{one}'" for one in touched))
        before = cells(others)
        assert batch_run()["aggregates_written"] == len(touched)
        assert cells(others) == before
        assert {kind for _, kind, _, _ in told(verify("--format", "jsonl"))} == {"orphaned"}

    @pytest.mark.parametrize(
        "words",
        [
            ("--attempts", "await"),
            ("--cert-events", "c.jsonl"),
            ("--content-index", "redis://127.0.0.1:1/0"),
        ],
    )
    def test_refuses_what_is_about_events(self, words: tuple[str, ...]) -> None:
        line = refused("run", "--source", SOURCE, "--store", STORE, *words)
        assert "is about events" in line

    def test_takes_no_orphan_out_of_a_row_that_it_changes(self) -> None:
        stale = cells("map = 'aggregates' AND key LIKE 'score:%'")[3]
        sql(f"UPDATE user_activity_agg_cell SET value = 99.5 WHERE {CELL}", *stale[:2], *stale[3:5])
        insert = "INSERT INTO user_activity_agg_cell VALUES (?, ?, ?, ?, ?, ?, ?)"
        for name in ("agg", "aggregates", "agg_last_updated"):
            sql(insert, *stale[:3], name, "score:do_deleted", 3, 5)
        before = cells("key = 'score:do_deleted'")
        assert batch_run()["aggregates_written"] == 1
        assert cells("key = 'score:do_deleted'") == before
        assert told(verify("--format", "jsonl")) == {
            (stale[1], "orphaned", name, "score:do_deleted") for name in ("agg", "aggregates")
        }

    def test_says_what_did_not_take(self, monkeypatch: pytest.MonkeyPatch) -> None:
        sql("DELETE FROM user_activity_agg_cell WHERE user_id = ?", cells()[0][1])
        monkeypatch.setattr(SqliteStore, "write_aggregates", lambda _, some: [None] * len(some))
        done = succeed("run", "--source", SOURCE, "--store", STORE)
        assert done.err.endswith(" did not take all that was written; run it again\n")
        found = succeed("run", "--source", SOURCE, "--store", STORE, "--summary", "json")
        assert "not_taken" not in found.out
        assert "did not take" in found.err

    def test_a_row_that_is_refused_for_good_is_a_dead_letter_that_can_be_replayed(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        user = cells()[0][1]
        sql("DELETE FROM user_activity_agg_cell WHERE user_id = ?", user)
        write = SqliteStore.write_aggregates

        def refuse(store: SqliteStore, updates: list[ActivityAgg]) -> list[StoreFault | None]:
            write(store, [one for one in updates if one.key.user_id != user])
            return [
                StoreRefusedError("too large") if u.key.user_id == user else None for u in updates
            ]

        with monkeypatch.context() as patch:
            patch.setattr(SqliteStore, "write_aggregates", refuse)
            done = verify("--repair", "--format", "jsonl")
            counts = batch_run()
        assert done.code == 3
        reports = [json.loads(line) for line in done.out.splitlines()]
        assert {(one["user_id"], one["refused"]) for one in reports} == {(user, "too large")}
        assert all(one["remaining"] == one["differences"] for one in reports)
        letters = [json.loads(line) for line in Path("dead-letter.jsonl").read_bytes().splitlines()]
        assert counts["dead_letters"] == len(letters) > 0
        assert {letter["userId"] for letter in letters} == {user}
        assert all(letter["metadata"]["validation_error"] == "too large" for letter in letters)
        assert verify().code == 3
        succeed("replay", "--from", "dead-letter.jsonl", "--store", STORE)
        assert verify().code == 0


def test_replay_reads_no_attempts() -> None:
    for source in ("cassandra://h/k", "snapshot:x"):
        assert "holds no dead letters" in refused("replay", "--from", source, "--store", STORE)
