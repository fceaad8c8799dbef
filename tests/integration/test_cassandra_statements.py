"""The statements as the cluster sees them: where they go, their times, and how many there are."""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Iterator
from typing import Any

import pytest
from cassandra import InvalidRequest
from cassandra.cluster import Session
from cassandra.query import BatchStatement, BoundStatement

from group_scores.runners.simulate import Simulation, simulate
from group_scores.scores import (
    ActivityKey,
    activity_agg,
    agg_details,
    best_scores,
    parse_event,
    score_attempt,
)
from group_scores.stores import AggregateRow, AttemptsRead
from group_scores.stores.cassandra import CassandraStore
from group_scores.stores.cassandra import limits as limits_module
from group_scores.stores.cassandra.limits import Limits
from group_scores.stores.cassandra.packing import Row, batch
from group_scores.stores.cassandra.wire import Bound
from tests.backends import NEW, OLDEST, CassandraBackend, backend_of
from tests.values import NOW_US, attempt, new_key, question, update, write

BATCH_BYTES = Limits().batch_bytes
READ_KEYS = Limits().read_keys


@pytest.fixture(scope="module", params=[NEW, OLDEST], ids=str)
def backend(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[CassandraBackend]:
    with backend_of(request.param, request, tmp_path_factory.mktemp("store")) as made:
        yield made


@pytest.fixture
def store(backend: CassandraBackend) -> CassandraStore:
    assert isinstance(backend.store, CassandraStore)
    return backend.store


@pytest.fixture
def sent(store: CassandraStore, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The statements that go out from now on."""
    seen: list[Any] = []
    store.now_us()  # what it asks the cluster for is asked before
    execute_async = store._session.execute_async

    def remember(statement: Any, *args: Any, **options: Any) -> Any:
        seen.append(statement)
        return execute_async(statement, *args, **options)

    monkeypatch.setattr(store._session, "execute_async", remember)
    return seen


def drivers_routing_key(statement: BoundStatement) -> bytes | None:
    """What the driver finds in the values by what the server told it of the partition key."""
    plain = BoundStatement(statement.prepared_statement)
    plain.values = statement.values
    return plain.routing_key  # type: ignore[no-any-return]


class TestRouting:
    def test_of_every_statement_is_the_drivers_own(
        self, backend: CassandraBackend, store: CassandraStore, sent: list[Any]
    ) -> None:
        key = new_key()
        store.read_attempts([key])
        store.read_attempts([key], for_writing=True)
        store.write_attempts([write(attempt(key), create=False)])
        store.read_aggregates([key])
        store.write_aggregates([update(key, {"a": 1.0})])
        store.write_aggregates([update(key, {"a": 1.0}, details=["text"])])
        assert len(sent) == 6
        queries = [statement.prepared_statement.query_string for statement in sent]
        assert ["WRITETIME" in query for query in queries[:2]] == [False, True]
        for statement in sent:
            assert isinstance(statement, Bound)
            assert statement.keyspace == backend.keyspace
            assert statement.routing_key == drivers_routing_key(statement)
            assert statement.routing_key
        row = store._statements.write_attempt(0, write(attempt(key)))
        assert len(row.statements) == 2
        for one in row.statements:
            assert one.routing_key == row.partition == drivers_routing_key(one)

    def test_of_many_learners_is_a_partition_of_theirs(
        self, backend: CassandraBackend, store: CassandraStore, sent: list[Any]
    ) -> None:
        keys = [ActivityKey("course", f"user-{n}", "batch") for n in range(5)]
        store.read_attempts(keys)
        store.read_aggregates(keys)
        store.write_aggregates([update(key, {"a": 1.0}) for key in keys])
        store.write_attempts([write(attempt(key, questions=[question()])) for key in keys])
        reads, rows, aggregates, attempts = sent
        lookups = [store._statements.attempts_lookup(0, key).partition for key in keys]
        assert reads.routing_key in lookups
        assert attempts.routing_key in lookups
        lookups = [store._statements.aggregate_lookup(0, key).partition for key in keys]
        assert rows.routing_key in lookups
        assert aggregates.routing_key in lookups
        for statement in sent:
            assert statement.keyspace == backend.keyspace
            plan = list(store._sender._policy.make_query_plan(None, statement))
            assert plan[0] is store._sender.replica(statement.routing_key)


def test_limits_are_the_nodes_own(store: CassandraStore, monkeypatch: pytest.MonkeyPatch) -> None:
    told: dict[str, str] = {}

    def remember(settings: dict[str, str]) -> Limits:
        told.update(settings)
        return Limits()

    monkeypatch.setattr(limits_module, "limits_of", remember)
    limits_module.read_limits(store._session)
    assert told == {
        "batch_size_warn_threshold_in_kb": "5",
        "unlogged_batch_across_partitions_warn_threshold": "10",
        "partition_keys_in_select_warn_threshold": "-1",
        "in_select_cartesian_product_warn_threshold": "-1",
        "native_transport_max_frame_size_in_mb": "16",
    }
    assert store._limits == Limits(statement_bytes=16 << 20)


def test_start_is_not_warned_of(
    backend: CassandraBackend, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, logger="cassandra")
    backend.open()
    assert [record.message for record in caplog.records] == []


class TestTimes:
    def test_of_an_attempt(self, backend: CassandraBackend, store: CassandraStore) -> None:
        key = new_key()
        store.write_attempts([write(attempt(key), write_us=123_456_789, now_us=5_000_000)])
        columns = ["last_attempted_on", "updated_on", "total_score", "total_max_score"]
        columns += ["grand_total", "question", "created_on"]
        ((*times, questions, created),) = backend.execute(
            f"SELECT {', '.join(f'WRITETIME({name})' for name in columns)} "
            "FROM {ks}.assessment_aggregator WHERE user_id = %s AND course_id = %s ALLOW FILTERING",
            (key.user_id, key.course_id),
        )
        assert times == [123_456_789] * 5
        assert list(questions) == [123_456_789]
        assert created == -5_000_000

    def test_of_an_aggregate(self, backend: CassandraBackend, store: CassandraStore) -> None:
        key = new_key()
        details = ["x", "y"] if store.wants_details else None
        store.write_aggregates([update(key, {"a": 1.0, "b": 2.0}, 777_777, details)])
        columns = ["agg", "agg_last_updated"]
        columns += ["aggregates"] if backend.shape.with_aggregates else []
        columns += ["agg_details"] if backend.shape.with_agg_details else []
        (times,) = backend.execute(
            f"SELECT {', '.join(f'WRITETIME({name})' for name in columns)} "
            "FROM {ks}.user_activity_agg WHERE activity_type = 'Course' AND activity_id = %s "
            "AND user_id = %s",
            (key.course_id, key.user_id),
        )
        assert [list(cells) for cells in times] == [[777_777, 777_777]] * len(columns)

    def test_of_the_driver_is_not_sent(self, store: CassandraStore) -> None:
        """A statement without a time of its own would get one from this machine's clock."""
        assert store._session.use_client_timestamp is False
        for prepared in (store._statements._insert, store._statements._insert_created):
            assert prepared.query_string.endswith("USING TIMESTAMP ?")
        assert " USING TIMESTAMP ? SET " in store._statements._update.query_string


class TestNumber:
    def test_of_reads(self, store: CassandraStore, sent: list[Any]) -> None:
        keys = [
            ActivityKey(course, f"user-{n}", batch)
            for course, batch, n in itertools.product(("c1", "c2"), ("b1", "b2"), range(40))
        ]
        assert all(isinstance(read, AttemptsRead) for read in store.read_attempts(keys))
        assert len(sent) == 4 * math.ceil(40 / READ_KEYS)
        sent.clear()
        assert all(isinstance(row, AggregateRow) for row in store.read_aggregates(keys))
        assert len(sent) == 4 * math.ceil(40 / READ_KEYS)

    def test_of_writes(
        self, backend: CassandraBackend, store: CassandraStore, sent: list[Any]
    ) -> None:
        keys = [new_key() for _ in range(100)]
        assert not any(store.write_aggregates([update(key, {"score": 1.0}) for key in keys]))
        assert len(sent) == 10
        assert {len(statement) for statement in sent} == {10}
        sent.clear()
        short = [write(attempt(key, questions=[question(title="?")])) for key in keys]
        assert not any(store.write_attempts(short))
        assert len(sent) < 20
        sent.clear()
        # The attempts of one partition are one mutation, of whatever size.
        key = new_key()
        long = [question(title="x" * BATCH_BYTES)]
        writes = [write(attempt(key, f"a{n}", questions=long)) for n in range(20)]
        assert not any(store.write_attempts(writes))
        assert len(sent) == 1

    def test_of_simulated_events_is_a_fraction_and_nothing_is_warned_of(
        self, store: CassandraStore, sent: list[Any], caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.WARNING, logger="cassandra")
        caplog.clear()
        attempts, keys = [], []
        for _, data in itertools.islice(simulate(Simulation(events=3000, seed=11)), 300):
            event = parse_event(data)
            scored = score_attempt(event)
            keys.append(event.key.activity)
            if scored:
                attempts.append(write(scored, write_us=NOW_US + len(attempts)))
        keys = list(dict.fromkeys(keys))
        assert not any(store.write_attempts(attempts))
        assert len(sent) < len(attempts)
        sent.clear()
        reads = store.read_attempts(keys)
        assert len(sent) < len(keys) / 2
        sent.clear()
        updates = [
            activity_agg(
                key,
                read.t_us,
                best_scores(read.attempts),
                details=agg_details(read.attempts) if store.wants_details else None,
            )
            for key, read in zip(keys, reads, strict=True)
            if isinstance(read, AttemptsRead)
        ]
        assert len(updates) == len(keys)
        assert not any(store.write_aggregates(updates))
        assert len(sent) < len(keys) / 2
        assert [record.message for record in caplog.records] == []

    @pytest.mark.parametrize("questions", [0, 1, 2, 5, 20])
    def test_size_of_a_row_is_not_underestimated(
        self, store: CassandraStore, questions: int
    ) -> None:
        """Batches just over the limit by our own count; Cassandra warns with its count of them."""
        answered = [question(id=f"q{n}", resvalues=None, params=None) for n in range(questions)]
        details = [f"detail {n}" for n in range(questions)]
        metrics = {f"score:do_{n}": float(n) for n in range(questions + 1)}
        for make in (
            lambda n: store._statements.write_attempt(
                n, write(attempt(new_key(), questions=answered or [question()]))
            ),
            lambda n: store._statements.write_aggregate(
                n, update(new_key(), metrics, NOW_US, details if store.wants_details else None)
            ),
        ):
            rows: list[Row] = []
            while not rows or sum(row.size for row in rows) < BATCH_BYTES:
                rows.append(make(len(rows)))
            assert self.warning(store, rows[:-1]) is None
            # And not overestimated by much: what is left unused costs statements.
            while (counted := self.warning(store, rows)) is None:
                rows.append(make(len(rows)))
            assert counted <= sum(row.size for row in rows) < 1.5 * counted

    def warning(self, store: CassandraStore, rows: list[Row]) -> int | None:
        """Send the rows as one batch and return the bytes that Cassandra warns of, if it does."""
        statement = batch(rows)
        assert isinstance(statement, BatchStatement | Bound)
        future = store._session.execute_async(statement)
        future.result()
        for text in future.warnings or ():
            if " is of size " in text:
                return int(text.partition(" is of size ")[2].partition(",")[0])
        return None


class TestWithoutTimesOfCollections:
    """Cassandra before 5.0 tells no write time of what is in a map or a list."""

    @pytest.fixture
    def older(self, backend: CassandraBackend, monkeypatch: pytest.MonkeyPatch) -> CassandraStore:
        prepare = Session.prepare

        def refuse(session: Session, query: str, *args: Any, **options: Any) -> Any:
            if "WRITETIME(agg" in query:
                raise InvalidRequest("Cannot use selection function writeTime on a collection")
            return prepare(session, query, *args, **options)

        monkeypatch.setattr(Session, "prepare", refuse)
        store = backend.open()
        assert isinstance(store, CassandraStore)
        return store

    def test_the_time_of_a_key_is_its_last_update(self, older: CassandraStore) -> None:
        key = new_key()
        details = ["text"] if older.wants_details else None
        older.write_aggregates([update(key, {"score:a": 1.0}, 5_000_999)])
        older.write_aggregates([update(key, {"score:b": 2.0}, 7_000_001, details)])
        (row,) = older.read_aggregates([key])
        assert isinstance(row, AggregateRow)
        assert row.agg == {"score:a": 1, "score:b": 2}
        assert row.write_us == {"score:a": 5_000_000, "score:b": 7_000_000}
        assert row.details_us == (7_000_000 if details else None)
        (nothing,) = older.read_aggregates([new_key()])
        assert nothing == AggregateRow({}, {}, {}, [])
