"""What a batch run finds and writes: every difference that is there, and nothing else."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from group_scores.scores import METRICS, ActivityAgg, ActivityKey, AggregateRow
from group_scores.scores.drift import DETAILS, UPDATED, RowDrift, row_drift
from group_scores.stores import Pruning, StoreFault, StoreTransientError
from group_scores.stores.sqlite import SqliteStore
from group_scores.transforms.repair_agg import find_drift, mend, write_drift
from group_scores.transforms.retry import Retry
from tests.convergence.model_store import Cluster, ModelStore

T = 1_700_000_000_000_000
KEY = ActivityKey("course", "user", "batch")
MAPS = ("agg", "aggregates")
NOW = Retry(0)

contents = st.sampled_from(["c1", "c2", "c3"])
names = st.builds(lambda metric, content: f"{metric}:{content}", st.sampled_from(METRICS), contents)
values = st.sampled_from([0.0, 1.0, 1.5, -2.25, 3e9])
metrics = st.dictionaries(names, values, max_size=5)
lists = st.lists(st.sampled_from(["a", "b"]), max_size=2)
# A write of the last ms before T may be later than the repair's; `mend` finds what does not show.
times = st.integers(T - 4_000, T - 1_000) | st.integers(T + 1, T + 2_000)


@st.composite
def rows(draw: st.DrawFn) -> list[ActivityAgg]:
    """The writes that a row is made of: ours and others', older and newer than T."""
    keys = st.one_of(names, st.just("completedCount"))
    return [
        ActivityAgg(
            KEY,
            draw(times),
            draw(st.dictionaries(keys, values, max_size=4)),
            draw(st.none() | lists),
        )
        for _ in range(draw(st.integers(0, 4)))
    ]


@contextmanager
def stored(writes: list[ActivityAgg]) -> Iterator[SqliteStore]:
    with tempfile.TemporaryDirectory() as folder:
        store = SqliteStore(f"{folder}/scores.db")
        try:
            for one in writes:
                assert store.write_aggregates([one]) == [None]
            yield store
        finally:
            store.close()


def drift(store: SqliteStore, expected: ActivityAgg) -> RowDrift:
    (found,) = find_drift(store, [expected], METRICS, NOW)
    return found


@given(writes=rows(), wanted=metrics, details=st.none() | lists)
def test_after_the_repair_nothing_older_differs(
    writes: list[ActivityAgg], wanted: dict[str, float], details: list[str] | None
) -> None:
    """And what is newer, or not ours, is as it was; a second time there is nothing to write."""
    expected = ActivityAgg(KEY, T, wanted, details)
    with stored(writes) as store:
        (before,) = store.read_aggregates([KEY])
        found = drift(store, expected)
        assert write_drift(store, [found], NOW, prune=True) == {}
        (after,) = store.read_aggregates([KEY])
        again = drift(store, expected)
        assert again.differences == []
        assert (again.update, again.prunable, again.undatable) == (None, [], [])
        assert not again.clearable
        assert isinstance(before, AggregateRow)
        assert isinstance(after, AggregateRow)
        for column in (*MAPS, "agg_last_updated_ms"):
            was, now = getattr(before, column), getattr(after, column)
            for name, value in was.items():
                ours = name.partition(":")[0] in METRICS
                if not ours or before.write_us[name] > T:
                    assert now[name] == value
            assert set(now) <= set(was) | set(wanted)
        for name, value in wanted.items():
            if before.write_us.get(name, 0) <= T:
                assert after.aggregates[name] == value
                assert after.agg[name] == expected.agg[name]
        if not found.differences:
            assert after == before


@given(wanted=metrics, details=lists, data=st.data())
def test_finds_what_was_planted_and_only_that(
    wanted: dict[str, float], details: list[str], data: st.DataObject
) -> None:
    expected = ActivityAgg(KEY, T, wanted, details)
    agg, aggregates = dict(expected.agg), dict(wanted)
    updated = dict.fromkeys(wanted, T // 1000)
    planted: set[tuple[str, str, str]] = set()
    for name in data.draw(st.sets(st.sampled_from(sorted(wanted))) if wanted else st.just(set())):
        kind = data.draw(st.sampled_from(["gone", "stale", "undated"]))
        column = data.draw(st.sampled_from(MAPS))
        values_of: dict[str, Any] = {"agg": agg, "aggregates": aggregates}[column]
        if kind == "gone":
            del values_of[name]
            planted.add(("missing", column, name))
        elif kind == "stale":
            values_of[name] -= 1
            planted.add(("stale", column, name))
        else:
            del updated[name]
            planted.add(("missing", UPDATED, name))
    for name in data.draw(st.sets(names.filter(lambda name: name not in wanted), max_size=2)):
        agg[name] = 7
        planted.add(("orphaned", "agg", name))
    found_details = data.draw(st.just(details) | lists)
    if found_details != details:
        kind = "orphaned" if not details else "stale" if found_details else "missing"
        planted.add((kind, DETAILS, ""))
    newer = data.draw(st.sets(st.sampled_from(sorted(agg))) if agg else st.just(set()))
    write_us = {name: T + 1 if name in newer else T - 5 for name in {*agg, *aggregates, *updated}}
    row = AggregateRow(agg | {"completedCount": 3}, aggregates, updated, found_details, write_us, T)
    found = row_drift(expected, row, maps=MAPS, metrics=METRICS)
    told = {(one.kind, one.column, one.name) for one in found.differences}
    assert len(told) == len(found.differences)
    assert told == {one for one in planted if one[2] not in newer}


def test_of_a_row_that_is_not_there_everything_is_missing() -> None:
    expected = ActivityAgg(KEY, T, {"score:c1": 1.5}, ["a"])
    found = row_drift(expected, AggregateRow({}, {}, {}, []), maps=MAPS, metrics=METRICS)
    assert [(one.kind, one.column, one.expected) for one in found.differences] == [
        ("missing", "agg", 1),
        ("missing", "aggregates", 1.5),
        ("missing", UPDATED, None),
        ("missing", DETAILS, 1),
    ]
    assert found.update == expected


def test_metrics_that_are_not_asked_for_are_left() -> None:
    row = AggregateRow({"max_score:c1": 9}, {}, {}, [])
    expected = ActivityAgg(KEY, T, {}, None)
    assert row_drift(expected, row, maps=MAPS, metrics=("score",)).differences == []
    assert len(row_drift(expected, row, maps=MAPS, metrics=METRICS).differences) == 1


class Hiding:
    """A store in which a whole map was deleted later than T: earlier writes do not show."""

    def __init__(self, store: SqliteStore) -> None:
        self._store = store

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def write_aggregates(self, updates: list[ActivityAgg]) -> list[Any]:
        shown = [one for one in updates if one.t_us > T + 1_000_000]
        self._store.write_aggregates(shown)
        return [None] * len(updates)


def test_what_does_not_show_is_computed_from_the_live_table() -> None:
    from tests.values import attempt, write

    with stored([]) as plain:
        assert plain.write_attempts([write(attempt(KEY, total_score=2.0))]) == [None]
        store: Any = Hiding(plain)
        expected = ActivityAgg(KEY, T, {"score:content": 1.0}, None)
        found = drift(store, expected)
        (mended,) = mend(store, [found], [expected], METRICS, NOW, prune=False)
        assert (mended.refused, mended.left) == (None, [])
        (row,) = plain.read_aggregates([KEY])
        assert isinstance(row, AggregateRow)
        assert row.aggregates["score:content"] == 2.0  # as the table has it now
        assert row.write_us["score:content"] > T


@given(digits=st.integers(0, 999))
def test_a_stream_that_read_later_wins(digits: int) -> None:
    """Also one that read 1 µs later, and whose write comes before or after."""
    later = ActivityAgg(KEY, T + 1, {"score:c1": 9.0}, ["later"])
    expected = ActivityAgg(KEY, T, {"score:c1": 1.0}, ["a"])
    with stored([]) as store:
        found = drift(store, expected)
        assert store.write_aggregates([later]) == [None]
        write_drift(store, [found], NOW, prune=True, digits=digits)
        (row,) = store.read_aggregates([KEY])
        assert isinstance(row, AggregateRow)
        assert (row.aggregates, row.details) == ({"score:c1": 9.0}, ["later"])


LOST, TIMED_OUT, LATE = range(3)


class Faulty:
    """A store whose tries of a write are lost, time out although they took effect, or come late."""

    def __init__(self, store: ModelStore, fates: list[int]) -> None:
        self._store = store
        self._fates = list(fates)
        self.late: list[tuple[str, list[Any]]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def write_aggregates(self, updates: list[ActivityAgg]) -> list[StoreFault | None]:
        return self._write("write_aggregates", updates)

    def prune_aggregates(self, prunings: list[Pruning]) -> list[StoreFault | None]:
        return self._write("prune_aggregates", prunings)

    def _write(self, name: str, items: list[Any]) -> list[StoreFault | None]:
        fate = self._fates.pop(0) if self._fates else None
        if fate == LATE:
            self.late.append((name, items))
        elif fate != LOST:
            getattr(self._store, name)(items)
        return [None if fate is None else StoreTransientError("timed out")] * len(items)


@given(
    writes=rows(),
    wanted=metrics,
    details=st.none() | lists,
    fates=st.lists(st.sampled_from([LOST, TIMED_OUT, LATE]), min_size=1, max_size=6),
    digits=st.integers(0, 999),
)
def test_a_repair_that_is_tried_again_ends_as_one_that_is_not(
    writes: list[ActivityAgg],
    wanted: dict[str, float],
    details: list[str] | None,
    fates: list[int],
    digits: int,
) -> None:
    """By the rules of Cassandra's cells, where a list written twice at one time is doubled."""
    expected = ActivityAgg(KEY, T, wanted, details)
    found = []
    for some in ([], fates):
        plain = ModelStore(Cluster(), lambda: T + 9_000_000)
        for one in writes:
            plain.write_aggregates([one])
        store: Any = Faulty(plain, some)
        (before,) = find_drift(store, [expected], METRICS, NOW)
        again = Retry(60, longest_pause_s=0)
        assert write_drift(store, [before], again, prune=True, digits=digits) == {}
        for name, items in store.late:
            getattr(plain, name)(items)
        (row,) = plain.read_aggregates([KEY])
        assert isinstance(row, AggregateRow)
        found.append((row.agg, row.aggregates, set(row.agg_last_updated_ms), row.details))
    assert found[0] == found[1]


class HidingAgg(Hiding):
    """Of what is written with an earlier time, one map alone does not show."""

    def write_aggregates(self, updates: list[ActivityAgg]) -> list[Any]:
        for one in updates:
            self._store.write_aggregates([one])
            if one.t_us <= T + 1_000_000:
                self._store._db.execute("DELETE FROM user_activity_agg_cell WHERE map = 'agg'")
        return [None] * len(updates)


def test_one_map_that_does_not_show_is_found() -> None:
    from tests.values import attempt, write

    with stored([]) as plain:
        assert plain.write_attempts([write(attempt(KEY, total_score=2.0))]) == [None]
        store: Any = HidingAgg(plain)
        expected = ActivityAgg(KEY, T, {"score:content": 2.0}, None)
        (mended,) = mend(store, [drift(store, expected)], [expected], METRICS, NOW, prune=False)
        assert mended.left == []
        (row,) = plain.read_aggregates([KEY])
        assert isinstance(row, AggregateRow)
        assert row.agg["score:content"] == 2


def test_what_does_not_show_and_is_not_in_the_live_table_is_told() -> None:
    with stored([]) as plain:
        store: Any = Hiding(plain)
        expected = ActivityAgg(KEY, T, {"score:content": 1.0}, None)
        found = drift(store, expected)
        (mended,) = mend(store, [found], [expected], METRICS, NOW, prune=False)
        assert [one.kind for one in mended.left] == ["missing"] * 3
