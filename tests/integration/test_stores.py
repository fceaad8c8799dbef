"""What every store has to do, held against each of them in every shape of its tables."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from group_scores.scores import ActivityKey
from group_scores.stores import (
    AddressError,
    AggregateRow,
    AttemptsRead,
    AttemptWrite,
    ClockSkewError,
    Pruning,
    Selection,
    Store,
    StoreRefusedError,
)
from group_scores.stores.cassandra import CassandraStore
from tests.backends import SHAPES, Backend, CassandraBackend, backend_of
from tests.values import NOW_US, attempt, new_key, question, update, write


@pytest.fixture(scope="module", params=SHAPES, ids=str)
def backend(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Backend]:
    with backend_of(request.param, request, tmp_path_factory.mktemp("store")) as made:
        yield made


@pytest.fixture
def store(backend: Backend) -> Store:
    return backend.store


@pytest.fixture
def key() -> ActivityKey:
    return new_key()


def read(store: Store, key: ActivityKey, *, for_writing: bool = False) -> AttemptsRead:
    (result,) = store.read_attempts([key], for_writing=for_writing)
    assert isinstance(result, AttemptsRead), result
    return result


def put(store: Store, *writes: AttemptWrite) -> None:
    """Write them one after the other."""
    for one in writes:
        assert store.write_attempts([one]) == [None]


class TestAttempts:
    def test_are_read_as_they_were_written(self, store: Store, key: ActivityKey) -> None:
        written = attempt(key, last_attempted_on_ms=123_456, total_score=0.1, total_max_score=3.0)
        put(store, write(written, write_us=123_456_007))
        (stored,) = read(store, key).attempts
        assert (stored.content_id, stored.attempt_id) == ("content", "attempt")
        assert stored.last_attempted_on_ms == 123_456
        assert (stored.total_score, stored.total_max_score) == (0.1, 3.0)

    def test_bring_their_write_time_where_a_write_follows(
        self, store: Store, key: ActivityKey
    ) -> None:
        put(
            store,
            write(attempt(key, "a"), write_us=5_000_123),
            write(attempt(key, "b"), write_us=6_000_456, create=False),
        )
        found = {a.attempt_id: a for a in read(store, key, for_writing=True).attempts}
        assert found["a"].write_us == 5_000_123
        assert found["a"].has_created_on
        assert found["b"].write_us == 6_000_456
        assert not found["b"].has_created_on

    def test_of_one_learner_in_one_batch_are_read_alone(self, store: Store) -> None:
        keys = [
            ActivityKey(*parts)
            for parts in itertools.product(("c1", "c2"), ("u1", "u2"), ("b1", "b2"))
        ]
        writes = [write(attempt(key, "/".join(key))) for key in keys]
        assert store.write_attempts(writes) == [None] * len(keys)
        for key, found in zip(keys, store.read_attempts(keys), strict=True):
            assert isinstance(found, AttemptsRead)
            assert [stored.attempt_id for stored in found.attempts] == ["/".join(key)]

    def test_that_are_not_there_are_an_empty_list(self, store: Store, key: ActivityKey) -> None:
        assert read(store, key).attempts == []
        assert read(store, key, for_writing=True).attempts == []

    def test_newest_write_wins_whole(self, backend: Backend, key: ActivityKey) -> None:
        new = attempt(key, total_score=1.0, questions=[question(id="n")], grand_total="new")
        old = attempt(key, total_score=2.0, questions=[question(id=i) for i in "abc"])
        for first, second in ((new, old), (old, new)):
            key = new_key()
            writes = [
                write(attempt_of(key, first), write_us=200 if first is new else 100),
                write(attempt_of(key, second), write_us=200 if second is new else 100),
            ]
            put(backend.store, *writes)
            (row,) = backend.rows("attempts", key)
            assert (row["total_score"], row["grand_total"]) == (1.0, "new")
            assert [answer["id"] for answer in row["question"]] == ["n"]

    def test_are_not_doubled_by_another_try(self, backend: Backend, key: ActivityKey) -> None:
        what = attempt(key, questions=[question(id="q1"), question(id="q2")])
        put(backend.store, *(write(what, write_us=1_000_000 + digits) for digits in (5, 6, 4, 7)))
        (row,) = backend.rows("attempts", key)
        assert [answer["id"] for answer in row["question"]] == ["q1", "q2"]

    @pytest.mark.parametrize("order", list(itertools.permutations((10_000, 20_000, 30_000))))
    @pytest.mark.parametrize("newest_write_first", [True, False])
    def test_keep_the_first_created_on(
        self,
        backend: Backend,
        key: ActivityKey,
        order: tuple[int, ...],
        newest_write_first: bool,
    ) -> None:
        for place, now_us in enumerate(order):
            write_us = 100 - place if newest_write_first else 100 + place
            put(backend.store, write(attempt(key), write_us=write_us, now_us=now_us))
        (row,) = backend.rows("attempts", key)
        assert row["created_on"] == 10
        assert row["updated_on"] == (order[0] if newest_write_first else order[-1]) // 1000

    def test_get_no_created_on_where_one_was_seen(self, backend: Backend, key: ActivityKey) -> None:
        put(backend.store, write(attempt(key), create=False))
        assert backend.rows("attempts", key)[0]["created_on"] is None


def attempt_of(key: ActivityKey, other: Any) -> Any:
    return attempt(
        key,
        total_score=other.total_score,
        grand_total=other.grand_total,
        questions=other.questions,
    )


class TestAggregates:
    def test_are_read_as_they_were_written(self, backend: Backend, key: ActivityKey) -> None:
        put_metrics(backend.store, key, {"score:do_1": 2.75, "attempts_count:do_1": 3.0})
        (row,) = backend.store.read_aggregates([key])
        assert row.agg == {"score:do_1": 2, "attempts_count:do_1": 3}
        if backend.shape.with_aggregates:
            assert row.aggregates == {"score:do_1": 2.75, "attempts_count:do_1": 3.0}
        else:
            assert row.aggregates == {}
        assert row.agg_last_updated_ms == dict.fromkeys(row.agg, NOW_US // 1000)

    def test_that_are_not_there_are_empty(self, store: Store, key: ActivityKey) -> None:
        (row,) = store.read_aggregates([key])
        assert (row.agg, row.aggregates, row.agg_last_updated_ms, row.details) == ({}, {}, {}, [])

    def test_keep_the_keys_of_other_writers(self, backend: Backend, key: ActivityKey) -> None:
        backend.put_foreign(key, {"completedCount": 7}, NOW_US + 50)
        put_metrics(backend.store, key, {"score:do_1": 1.0}, NOW_US)
        put_metrics(backend.store, key, {"score:do_2": 2.0}, NOW_US + 100)
        (row,) = backend.store.read_aggregates([key])
        assert row.agg == {"completedCount": 7, "score:do_1": 1, "score:do_2": 2}
        assert set(row.agg_last_updated_ms) == {"score:do_1", "score:do_2"}

    def test_older_read_never_overrides(self, backend: Backend, key: ActivityKey) -> None:
        wants = backend.store.wants_details
        put_metrics(backend.store, key, {"a": 5.0, "b": 5.0}, 2_000_000, ["new"] if wants else None)
        stale = {"a": 9.0, "c": 9.0}
        put_metrics(backend.store, key, stale, 1_999_999, ["old", "older"] if wants else None)
        (row,) = backend.store.read_aggregates([key])
        assert row.agg == {"a": 5, "b": 5, "c": 9}
        assert row.agg_last_updated_ms == {"a": 2000, "b": 2000, "c": 1999}
        assert row.details == (["new"] if wants else [])

    def test_at_equal_times_the_greater_value_wins(self, store: Store) -> None:
        for values in ((1.0, 2.0), (2.0, 1.0)):
            key = new_key()
            for value in values:
                put_metrics(store, key, {"score": value}, NOW_US)
            (row,) = store.read_aggregates([key])
            assert row.agg == {"score": 2}
            assert row.aggregates in ({"score": 2.0}, {})

    def test_details_are_replaced_and_never_doubled(
        self, backend: Backend, key: ActivityKey
    ) -> None:
        if not backend.store.wants_details:
            pytest.skip("these tables have no list")
        for t_us, details in ((10, ["a", "b"]), (20, ["a", "b", "c"]), (21, ["a", "b", "c"])):
            put_metrics(backend.store, key, {"score": 1.0}, t_us, details)
        (row,) = backend.store.read_aggregates([key])
        assert row.details == ["a", "b", "c"]
        put_metrics(backend.store, key, {"score": 2.0}, 30, None)
        assert backend.store.read_aggregates([key])[0].details == ["a", "b", "c"]
        put_metrics(backend.store, key, {"score": 2.0}, 40, [])
        assert backend.store.read_aggregates([key])[0].details == []

    def test_details_alone_are_a_row(self, backend: Backend, key: ActivityKey) -> None:
        if not backend.store.wants_details:
            pytest.skip("these tables have no list")
        put_metrics(backend.store, key, {}, details=["only"])
        (row,) = backend.store.read_aggregates([key])
        assert (row.agg, row.details) == ({}, ["only"])

    def test_negative_and_large_values(self, backend: Backend, key: ActivityKey) -> None:
        put_metrics(backend.store, key, {"low": -2.9, "lowest": -1e300, "high": 1e300})
        (row,) = backend.store.read_aggregates([key])
        assert row.agg == {"low": -2, "lowest": -(2**31), "high": 2**31 - 1}
        if backend.shape.with_aggregates:
            assert row.aggregates == {"low": -2.9, "lowest": -1e300, "high": 1e300}


class TestWriteTimes:
    def test_are_told_for_each_key(self, backend: Backend, key: ActivityKey) -> None:
        wants = backend.store.wants_details
        put_metrics(backend.store, key, {"a": 1.0, "b": 1.0}, 1_000, ["x"] if wants else None)
        put_metrics(backend.store, key, {"b": 2.0}, 2_007, ["x", "y"] if wants else None)
        put_metrics(backend.store, key, {"b": 9.0, "c": 1.0}, 1_500, ["z"] if wants else None)
        (row,) = backend.store.read_aggregates([key])
        assert row.write_us == {"a": 1_000, "b": 2_007, "c": 1_500}
        assert row.details_us == (2_007 if wants else None)

    def test_of_a_row_that_is_not_there_are_none(self, store: Store, key: ActivityKey) -> None:
        (row,) = store.read_aggregates([key])
        assert (row.write_us, row.details_us) == ({}, None)


class TestPruning:
    def test_takes_out_what_was_not_written_later(self, backend: Backend, key: ActivityKey) -> None:
        backend.put_foreign(key, {"completedCount": 7}, 50)
        put_metrics(backend.store, key, {"score:a": 1.0, "score:b": 1.0}, 100)
        put_metrics(backend.store, key, {"score:b": 2.0, "score:c": 2.0}, 201)
        pruning = _pruning(key, 200, ["score:a", "score:b", "score:nobody"])
        for _ in range(2):  # it may be repeated
            assert backend.store.prune_aggregates([pruning]) == [None]
            (row,) = backend.store.read_aggregates([key])
            assert row.agg == {"completedCount": 7, "score:b": 2, "score:c": 2}
            assert set(row.agg_last_updated_ms) == {"score:b", "score:c"}
            assert set(row.aggregates) <= {"score:b", "score:c"}
        (record,) = backend.store.scan("aggregates", Selection(key.course_id))
        assert record["agg"] == row.agg

    def test_hides_what_is_written_with_an_earlier_time(self, store: Store) -> None:
        key = new_key()
        store.prune_aggregates([_pruning(key, 200, ["score:a"])])
        put_metrics(store, key, {"score:a": 1.0}, 199)
        put_metrics(store, key, {"score:a": 1.0}, 200)
        assert store.read_aggregates([key])[0].agg == {}
        put_metrics(store, key, {"score:a": 3.0}, 201)
        assert store.read_aggregates([key])[0].agg == {"score:a": 3}

    def test_is_each_rows_own(self, store: Store) -> None:
        keys = [new_key() for _ in range(30)]
        store.write_aggregates([update(key, {"score:a": 1.0}, 100) for key in keys])
        assert store.prune_aggregates([_pruning(k, 100, ["score:a"]) for k in keys[::2]]) == (
            [None] * 15
        )
        assert [len(row.agg) for row in store.read_aggregates(keys)] == [0, 1] * 15
        bad = keys[1]._replace(user_id="\udfff")
        refused, fine = store.prune_aggregates(
            [_pruning(k, 100, ["score:a"]) for k in (bad, keys[1])]
        )
        assert isinstance(refused, StoreRefusedError)
        assert fine is None

    @pytest.mark.parametrize("column", ["agg", "aggregates"])
    def test_leaves_the_map_that_is_not_written(
        self, backend: Backend, key: ActivityKey, column: Any
    ) -> None:
        if not backend.shape.with_aggregates:
            return
        other = "aggregates" if column == "agg" else "agg"
        put_metrics(backend.store, key, {"score:a": 1.0, "score:b": 2.0}, 100)
        store = backend.open(agg_columns=column)
        pruning = Pruning(key, 200, ["score:a", "score:b"], ["score:b"])
        assert store.prune_aggregates([pruning]) == [None]
        (row,) = store.read_aggregates([key])
        assert getattr(row, column) == {}
        assert getattr(row, other) == {"score:a": 1, "score:b": 2}
        assert set(row.agg_last_updated_ms) == {"score:a"}


def _pruning(key: ActivityKey, t_us: int, names: list[str]) -> Pruning:
    return Pruning(key, t_us, names, names)


def put_metrics(
    store: Store,
    key: ActivityKey,
    metrics: dict[str, float],
    t_us: int = NOW_US,
    details: list[str] | None = None,
) -> None:
    assert store.write_aggregates([update(key, metrics, t_us, details)]) == [None]


class TestOptions:
    @pytest.mark.parametrize("columns", ["auto", "agg", "aggregates"])
    def test_choose_the_columns(self, backend: Backend, key: ActivityKey, columns: Any) -> None:
        if columns == "aggregates" and not backend.shape.with_aggregates:
            with pytest.raises(AddressError, match=r"ALTER TABLE .* ADD aggregates map<text, doub"):
                backend.open(agg_columns=columns)
            return
        store = backend.open(agg_columns=columns)
        put_metrics(store, key, {"score": 1.5})
        (row,) = store.read_aggregates([key])
        assert row.agg == ({"score": 1} if columns != "aggregates" else {})
        both = columns != "agg" and backend.shape.with_aggregates
        assert row.aggregates == ({"score": 1.5} if both else {})
        assert row.agg_last_updated_ms == {"score": NOW_US // 1000}

    @pytest.mark.parametrize("wanted", [True, False, None])
    def test_choose_the_details(
        self, backend: Backend, key: ActivityKey, wanted: bool | None
    ) -> None:
        has = backend.shape.with_agg_details
        if wanted and not has:
            with pytest.raises(AddressError, match=r"ALTER TABLE .* ADD agg_details list<text>"):
                backend.open(agg_details=wanted)
            return
        store = backend.open(agg_details=wanted)
        assert store.wants_details is (has and wanted is not False)
        put_metrics(store, key, {"score": 1.0}, details=["text"])
        assert store.read_aggregates([key])[0].details == (["text"] if store.wants_details else [])


class TestClock:
    def test_grows_with_each_call(self, store: Store) -> None:
        times = [store.now_us() for _ in range(200)]
        assert times == sorted(set(times))

    def test_of_a_read_grows(self, store: Store, key: ActivityKey) -> None:
        times = [read(store, key, for_writing=n % 2 == 0).t_us for n in range(20)]
        assert times == sorted(set(times))
        assert times[-1] < store.now_us()

    def test_of_a_read_is_before_the_read(
        self, backend: Backend, key: ActivityKey, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What is written right after the time was taken is in the read."""
        store = backend.open()
        now_us = store.now_us
        taken: list[int] = []

        def take() -> int:
            taken.append(now_us())
            put(backend.store, write(attempt(key, f"a{len(taken)}")))
            return taken[-1]

        monkeypatch.setattr(store, "now_us", take)
        for number in (1, 2):
            found = read(store, key)
            assert found.t_us == taken[-1]
            assert len(found.attempts) == number

    def test_that_cannot_be_trusted_fails_the_read(
        self, backend: Backend, key: ActivityKey, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse() -> int:
            raise ClockSkewError("this machine's clock is off")

        store = backend.open()
        monkeypatch.setattr(store, "now_us", refuse)
        faults = store.read_attempts([key, new_key()])
        assert [type(fault) for fault in faults] == [ClockSkewError] * 2


class TestMany:
    def test_nothing_is_nothing(self, store: Store) -> None:
        assert store.read_attempts([]) == []
        assert store.read_attempts([], for_writing=True) == []
        assert store.write_attempts([]) == []
        assert store.read_aggregates([]) == []
        assert store.write_aggregates([]) == []

    def test_more_than_are_sent_at_once_come_back_in_order(
        self, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        if isinstance(store, CassandraStore):
            monkeypatch.setattr(store._sender, "_in_flight", 7)
        keys = [new_key() for _ in range(400)]
        writes = [write(attempt(key, f"attempt of {key.user_id}")) for key in keys]
        assert store.write_attempts(writes) == [None] * 400
        updates = [update(key, {key.user_id: 1.0}) for key in keys]
        assert store.write_aggregates(updates) == [None] * 400
        for key, found in zip(keys, store.read_attempts(keys), strict=True):
            assert isinstance(found, AttemptsRead)
            assert [a.attempt_id for a in found.attempts] == [f"attempt of {key.user_id}"]
        for key, row in zip(keys, store.read_aggregates(keys), strict=True):
            assert row.agg == {key.user_id: 1}

    def test_of_one_learner_in_one_call(self, backend: Backend, key: ActivityKey) -> None:
        """Attempts of one partition, new and newer versions among them."""
        writes = [
            write(
                attempt(key, f"a{n % 20}", total_score=float(n)), write_us=1000 + n, now_us=NOW_US
            )
            for n in range(60)
        ]
        assert backend.store.write_attempts(writes) == [None] * 60
        found = {a.attempt_id: a.total_score for a in read(backend.store, key).attempts}
        assert found == {f"a{n}": 40.0 + n for n in range(20)}
        assert all(len(row["question"]) == 1 for row in backend.rows("attempts", key))

    def test_key_twice_in_one_call(self, store: Store, key: ActivityKey) -> None:
        assert store.write_aggregates(
            [update(key, {"a": 1.0}, 10), update(key, {"a": 2.0, "b": 2.0}, 5)]
        ) == [None, None]
        first, other, again = store.read_aggregates([key, new_key(), key])
        assert first.agg == again.agg == {"a": 1, "b": 2}
        assert other.agg == {}

    def test_from_several_threads(self, store: Store) -> None:
        def work(_: int) -> None:
            key = new_key()
            for number in range(10):
                put(store, write(attempt(key, f"a{number}")))
                assert len(read(store, key).attempts) == number + 1
                put_metrics(store, key, {f"m{number}": 1.0}, store.now_us())
                assert len(store.read_aggregates([key])[0].agg) == number + 1

        with ThreadPoolExecutor(6) as pool:
            assert list(pool.map(work, range(6))) == [None] * 6


class TestRefused:
    def test_value_that_cannot_be_encoded_fails_alone(
        self, backend: Backend, key: ActivityKey
    ) -> None:
        writes = [
            write(attempt(key, "good")),
            write(attempt(key, "bad", grand_total="\ud800")),
            write(attempt(key, "late"), write_us=2**63),
            write(attempt(key, "best")),
        ]
        good, bad, late, best = backend.store.write_attempts(writes)
        assert good is None
        assert best is None
        assert isinstance(bad, StoreRefusedError)
        assert isinstance(late, StoreRefusedError)
        assert {a.attempt_id for a in read(backend.store, key).attempts} == {"good", "best"}

    def test_aggregate_that_cannot_be_encoded_fails_alone(self, store: Store) -> None:
        keys = [new_key() for _ in range(3)]
        metrics: list[dict[str, float]] = [{"a": 1.0}, {"a": 1.0, "\ud800": 1.0}, {"a": 1.0}]
        faults = store.write_aggregates(
            [update(key, values) for key, values in zip(keys, metrics, strict=True)]
        )
        assert faults[0] is None
        assert faults[2] is None
        assert isinstance(faults[1], StoreRefusedError)
        first, nothing, last = store.read_aggregates(keys)
        assert nothing == AggregateRow({}, {}, {}, [])
        assert first.agg == last.agg == {"a": 1}

    def test_key_that_cannot_be_encoded_fails_alone(self, store: Store, key: ActivityKey) -> None:
        bad = key._replace(user_id="\udfff")
        put(store, write(attempt(key)))
        put_metrics(store, key, {"a": 1.0})
        reads = store.read_attempts([key, bad])
        assert isinstance(reads[0], AttemptsRead)
        assert len(reads[0].attempts) == 1
        assert isinstance(reads[1], StoreRefusedError)
        rows = store.read_aggregates([bad, key])
        assert isinstance(rows[0], StoreRefusedError)
        assert rows[1].agg == {"a": 1}


class TestLimits:
    """What events.md lets through has to be stored."""

    def test_longest_keys(self, backend: Backend) -> None:
        user, course = "u" * 32_000, "c" * (65_535 - 32_000 - len("Course") - 9)
        content = "d" * (65_535 - len("attempts_count:"))
        long = ActivityKey(course, user, "b")
        short = new_key()
        wide = short._replace(batch_id="b" * (65_535 - len("cb:")))
        put_metrics(backend.store, long, {"score:d": 1.0})
        put_metrics(backend.store, wide, {"score:d": 2.0})
        put_metrics(backend.store, short, {f"attempts_count:{content}": 3.0})
        rows = backend.store.read_aggregates([long, wide, short])
        assert [list(row.agg.values()) for row in rows] == [[1], [2], [3]]
        # The clustering columns of the old key: batch, user, content, attempt.
        rest = 65_535 - len(user) - len("b") - len("content")
        for key, attempt_id in ((long, "a"), (ActivityKey("c", user, "b"), "a" * rest)):
            put(backend.store, write(attempt(key, attempt_id)))
            assert [a.attempt_id for a in read(backend.store, key).attempts] == [attempt_id]

    def test_large_attempt(self, backend: Backend, key: ActivityKey) -> None:
        title = "long " * 200_000
        questions = [question(id=f"q{n}", title=title if n == 3 else "short") for n in range(300)]
        put(backend.store, write(attempt(key, questions=questions)))
        (row,) = backend.rows("attempts", key)
        assert [answer["id"] for answer in row["question"]] == [f"q{n}" for n in range(300)]
        assert row["question"][3]["title"] == title

    def test_times_of_every_calendar(self, backend: Backend, key: ActivityKey) -> None:
        last_ms = 253_402_300_799_999
        for n, ms in enumerate((1, last_ms)):
            put(backend.store, write(attempt(key, f"a{n}", last_attempted_on_ms=ms)))
        assert [a.last_attempted_on_ms for a in read(backend.store, key).attempts] == [1, last_ms]
        assert [row["last_attempted_on"] for row in backend.rows("attempts", key)] == [1, last_ms]

    def test_scores_of_every_size(self, backend: Backend, key: ActivityKey) -> None:
        scores = [-1.7976931348623157e308, -5e-324, 0.0, 5e-324, 1.7976931348623157e308]
        for n, score in enumerate(scores):
            put(backend.store, write(attempt(key, f"a{n}", total_score=score)))
        assert [a.total_score for a in read(backend.store, key).attempts] == scores
        assert all(map(math.isfinite, scores))


def test_shapes_are_what_they_say(backend: Backend) -> None:
    """A store on old tables is really on old tables."""
    if not isinstance(backend, CassandraBackend):
        return
    tables = backend.session.cluster.metadata.keyspaces[backend.keyspace].tables
    first = tables["assessment_aggregator"].partition_key[0].name
    assert first == f"{backend.shape.attempts_key}_id"
    columns = tables["user_activity_agg"].columns
    assert ("aggregates" in columns) is backend.shape.with_aggregates
    assert ("agg_details" in columns) is backend.shape.with_agg_details
