"""What `verify` does with rows, and what a person sees of it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from group_scores.runners import drift_screen
from group_scores.runners.drift_screen import Tally
from group_scores.scores import METRICS, ActivityAgg, ActivityKey, AggregateRow
from group_scores.scores.drift import Difference
from group_scores.stores import StoreFault, StoreRefusedError
from group_scores.stores.sqlite import SqliteStore
from group_scores.transforms.elements import ActivityUpdate
from group_scores.transforms.retry import Retry
from group_scores.transforms.verify_agg import RowReport, verify_rows
from group_scores.transforms.write_agg import write_changed
from tests.values import attempt, write

T = 1_700_000_000_000_000
KEY = ActivityKey("course", "user", "batch")
NOW = Retry(0)
MENDED = Difference("stale", "agg", "score:c1", 2.0, 1)
ORPHAN = Difference("orphaned", "agg", "score:c9", None, 7)
COUNTS: dict[str, float] = {"attempts_read": 5, "aggregates_compared": 3, "seconds": 1.0}


@pytest.fixture
def store() -> Iterator[SqliteStore]:
    with tempfile.TemporaryDirectory() as folder:
        opened = SqliteStore(f"{folder}/scores.db")
        yield opened
        opened.close()


def update(score: float, key: ActivityKey = KEY, t_us: int = T) -> ActivityUpdate:
    agg = ActivityAgg(key, t_us, {"score:content": score}, None)
    return ActivityUpdate(agg, ["content"], None, [])


def row(store: SqliteStore, key: ActivityKey = KEY) -> AggregateRow:
    (found,) = store.read_aggregates([key])
    assert isinstance(found, AggregateRow)
    return found


class Refusing:
    """A store that refuses one learner's rows."""

    def __init__(self, store: SqliteStore, user: str) -> None:
        self._store, self._user = store, user

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def write_aggregates(self, updates: Sequence[ActivityAgg]) -> list[StoreFault | None]:
        return [
            StoreRefusedError("too large")
            if one.key.user_id == self._user
            else self._store.write_aggregates([one])[0]  # type: ignore[misc]
            for one in updates
        ]


class Hiding:
    """A store in which somebody has deleted the maps after T: what is written before is hidden."""

    def __init__(self, store: SqliteStore) -> None:
        self._store = store

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def write_aggregates(self, updates: Sequence[ActivityAgg]) -> list[StoreFault | None]:
        return [None] * len(updates)


class TestRows:
    def test_a_refusal_is_told_with_its_reason_and_hinders_no_other(
        self, store: SqliteStore
    ) -> None:
        other = KEY._replace(user_id="other")
        refusing: Any = Refusing(store, "user")
        updates = [update(1.0), update(2.0, other)]
        refused, fine = verify_rows(refusing, updates, METRICS, NOW, repair=True, prune=False)
        assert refused.refused == "too large"
        assert refused.remaining == refused.differences != []
        assert (fine.refused, fine.remaining) == (None, [])
        assert row(store, other).aggregates == {"score:content": 2.0}
        assert row(store).aggregates == {}

    def test_a_learner_who_comes_twice_is_compared_once_as_read_last(
        self, store: SqliteStore
    ) -> None:
        updates = [update(2.0, t_us=T + 5_000), update(1.0), update(2.0, t_us=T + 5_000)]
        (report,) = verify_rows(store, updates, METRICS, NOW, repair=True, prune=True)
        assert report.remaining == []
        assert row(store).aggregates == {"score:content": 2.0}

    def test_what_did_not_take_remains_with_the_value_that_it_should_have_now(
        self, store: SqliteStore
    ) -> None:
        assert store.write_attempts([write(attempt(KEY, total_score=9.0))]) == [None]
        hiding: Any = Hiding(store)
        (report,) = verify_rows(hiding, [update(1.0)], METRICS, NOW, repair=True, prune=False)
        by_name = {(one.column, one.name): one.expected for one in report.differences}
        remaining = {(one.column, one.name): one.expected for one in report.remaining}
        assert by_name["aggregates", "score:content"] == 1.0
        assert remaining["aggregates", "score:content"] == 9.0


def test_a_batch_run_says_what_did_not_take(
    store: SqliteStore, caplog: pytest.LogCaptureFixture
) -> None:
    hiding: Any = Hiding(store)
    result = write_changed(hiding, [update(1.0)], METRICS, NOW)
    assert (result.written, result.not_taken) == (1, 1)
    assert "a row of course course, batch batch: 3 values did not take; run again" in caplog.text
    assert "user" not in caplog.text
    caplog.clear()
    result = write_changed(store, [update(1.0)], METRICS, NOW)
    assert (result.written, result.not_taken) == (1, 0)
    assert caplog.text == ""


def shown(
    capsys: pytest.CaptureFixture[str], *reports: RowReport, repair: bool, prune: bool = False
) -> tuple[str, Tally]:
    tally = Tally(repair=repair, prune=prune)
    drift_screen.show_drift(reports, COUNTS, tally)
    return capsys.readouterr().out, tally


def report(remaining: list[Difference], refused: str | None = None) -> RowReport:
    return RowReport("course", "user", "batch", [MENDED, ORPHAN], remaining, refused)


def cell(out: str, name: str) -> str:
    """The last column of the line of a key."""
    (line,) = [line for line in out.splitlines() if name in line]
    return line.partition(name)[2].rstrip()


class TestScreen:
    def test_only_looked(self, capsys: pytest.CaptureFixture[str]) -> None:
        out, tally = shown(capsys, report([MENDED, ORPHAN]), repair=False)
        assert tally.left == 1
        assert out.endswith("1 row differs\n")
        assert "done" not in out

    def test_repaired_with_orphans_left(self, capsys: pytest.CaptureFixture[str]) -> None:
        out, tally = shown(capsys, report([ORPHAN]), repair=True)
        assert (tally.left, tally.repaired, tally.orphans) == (0, 1, 1)
        assert cell(out, "score:c1 (int)").endswith("done")
        assert not cell(out, "score:c9 (int)").endswith("done")
        assert out.splitlines()[-2:] == [
            "5 attempts read, 3 rows compared in 1.0 s: 1 row repaired",
            "1 row has scores without any attempt; --repair --prune takes them out",
        ]

    def test_repaired_and_pruned(self, capsys: pytest.CaptureFixture[str]) -> None:
        out, tally = shown(capsys, report([]), repair=True, prune=True)
        assert (tally.left, tally.repaired, tally.orphans) == (0, 1, 0)
        assert out.endswith("1 row repaired\n")

    def test_an_orphan_that_did_not_go_was_asked_for(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        out, tally = shown(capsys, report([ORPHAN]), repair=True, prune=True)
        assert (tally.left, tally.repaired, tally.orphans) == (1, 0, 0)
        assert cell(out, "score:c9 (int)").endswith("did not take")
        assert out.endswith("0 rows repaired, 1 still differ\n")

    def test_a_value_that_is_still_wrong_is_not_done(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """Also where, computed again, it should be another one."""
        again = Difference("missing", "agg", "score:c1", 3.0, None)
        out, tally = shown(capsys, report([again, ORPHAN]), repair=True)
        assert tally.left == 1
        assert cell(out, "score:c1 (int)").endswith("did not take")

    def test_a_refusal_with_its_reason(self, capsys: pytest.CaptureFixture[str]) -> None:
        out, tally = shown(capsys, report([MENDED, ORPHAN], "too large\x1b"), repair=True)
        assert (tally.left, tally.orphans) == (1, 1)
        assert cell(out, "score:c1 (int)").endswith("refused: too large\\x1b")
        assert "refused" not in cell(out, "score:c9 (int)")
