"""What goes wrong beside the rows of a batch run, and what comes twice."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cassandra.cluster import NoHostAvailable

from group_scores.runners.verify import read_report
from group_scores.scores import METRICS, ActivityAgg, ActivityKey
from group_scores.scores.drift import Difference
from group_scores.stores import StoreTransientError
from group_scores.stores.cassandra.raw_rows import holds
from group_scores.stores.cassandra.rows import aggregate_row
from group_scores.stores.cassandra.store import CassandraStore
from group_scores.stores.sqlite import SqliteStore
from group_scores.transforms.elements import ActivityUpdate
from group_scores.transforms.progress import temporary_progress
from group_scores.transforms.retry import Retry
from group_scores.transforms.scored_keys import scored_keys
from group_scores.transforms.verify_agg import RowReport
from group_scores.transforms.write_agg import write_changed
from tests.command_line import refused

KEY = ActivityKey("course", "user", "batch")
T = 1_700_000_000_000_000


def test_a_cluster_that_is_away_when_rows_are_first_compared_is_waited_for() -> None:
    class Away:
        class cluster:
            @staticmethod
            def connect() -> Any:
                raise NoHostAvailable("none", {})

    store = CassandraStore.__new__(CassandraStore)
    store._session = Away
    store._schema = type("Schema", (), {"aggregate_values": ()})  # type: ignore[assignment]
    (outcome,) = store.hold([ActivityAgg(KEY, T, {}, None)], METRICS)
    assert isinstance(outcome, StoreTransientError)


def test_a_name_that_cannot_be_encoded_is_left_to_the_write() -> None:
    update = ActivityAgg(KEY, T, {"score:\udfff": 1.0}, None)
    assert holds(update, {}, maps=("agg",), metrics=METRICS) is False


def test_where_no_times_are_told_another_jobs_key_says_nothing_of_the_list() -> None:
    columns = ("agg", "agg_last_updated", "agg_details")
    updated = {"completedCount": 9_000, "score:c1": 5_000}
    row = aggregate_row(columns, ({"completedCount": 1, "score:c1": 1}, updated, ["x"]))
    assert row.details_us == 5_000_000
    alone = aggregate_row(columns, ({"completedCount": 1}, {"completedCount": 9_000}, ["x"]))
    assert alone.details_us is None


def test_of_a_learner_who_comes_twice_the_later_read_is_written(tmp_path: Path) -> None:
    store = SqliteStore(str(tmp_path / "scores.db"))
    updates = [
        ActivityUpdate(ActivityAgg(KEY, t_us, {"score:c1": score}, None), ["c1"], None, [])
        for t_us, score in ((T + 5_000, 2.0), (T, 1.0))
    ]
    assert write_changed(store, updates, METRICS, Retry(0)).written == 1
    (row,) = store.read_aggregates([KEY])
    assert row.agg == {"score:c1": 2}  # type: ignore[union-attr]
    store.close()


def test_a_row_that_was_told_twice_is_read_as_it_was_told_last(tmp_path: Path) -> None:
    drift = [Difference("stale", "agg", "score:c1", 2, 1)]
    first = RowReport("c", "u", "b", drift, drift)
    other = RowReport("c", "u2", "b", drift, drift)
    last = RowReport("c", "u", "b", drift, [])
    path = tmp_path / "drift.jsonl"
    path.write_bytes(b"".join(msgspec.json.encode(one) + b"\n" for one in (first, other, last)))
    assert list(read_report(str(path))) == [other, last]
    assert list(read_report(str(tmp_path / "none.jsonl"))) == []


def test_a_folder_that_was_cleaned_up_does_not_end_a_run_that_is_over() -> None:
    with temporary_progress() as progress:
        assert progress.folder is not None
        shutil.rmtree(progress.folder)


def test_contexts_that_are_no_batch_are_not_ours() -> None:
    rows = [("course", "user", context, {"score:c1": 1}) for context in ("batch", "cb:batch")]
    assert list(scored_keys(rows, METRICS)) == [KEY]


def test_what_may_be_in_a_missing_file_is_not_pruned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    SqliteStore("s.db").close()
    (tmp_path / "nightly").mkdir()
    words = ("--source", "snapshot:nightly", "--store", "sqlite:s.db", "--allow-partial")
    line = refused("verify", *words, "--repair", "--prune")
    assert "with --allow-partial the attempt may be in a file that is missing" in line
