"""What goes wrong during work: for one item, for a while, or for good."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import psutil
import pytest

from group_scores.scores import ActivityKey
from group_scores.stores import (
    AddressError,
    AttemptsRead,
    Selection,
    ServiceUnavailableError,
    Store,
    StoreConfig,
    StoreRefusedError,
    StoreTransientError,
    open_store,
)
from group_scores.stores.cassandra import CassandraStore
from group_scores.stores.cassandra import session as session_module
from tests.servers.cassandra_server import CassandraServer, create_tables
from tests.values import attempt, new_key, question, update, write

BACK_S = 5.0


@pytest.fixture(scope="module")
def address(cassandra: CassandraServer, cassandra_session: Any) -> Iterator[str]:
    create_tables(cassandra_session, "faults")
    yield f"cassandra://{cassandra.host}:{cassandra.port}/faults"
    cassandra_session.execute("DROP KEYSPACE faults")


@pytest.fixture
def store(address: str) -> Iterator[CassandraStore]:
    made = open_store(StoreConfig(address))
    assert isinstance(made, CassandraStore)
    yield made
    made.close()


def work(store: Store, keys: list[ActivityKey]) -> list[Any]:
    """Do each kind of call once, for several learners, and return all the results."""
    return [
        *store.write_attempts([write(attempt(key)) for key in keys]),
        *store.read_attempts(keys),
        *store.read_attempts(keys[:1], for_writing=True),
        *store.write_aggregates([update(key, {"score": 1.0}, details=[]) for key in keys]),
        *store.write_aggregates([update(key, {"score": 1.0}, 1) for key in keys[:1]]),
        *store.read_aggregates(keys),
        *store.read_aggregates(keys[:1]),
    ]


def is_well(results: list[Any]) -> bool:
    return not any(isinstance(result, Exception) for result in results)


class TestAway:
    def test_paused(
        self, cassandra: CassandraServer, address: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(session_module, "REQUEST_TIMEOUT_S", 0.5)
        store = open_store(StoreConfig(address))
        keys = [new_key() for _ in range(20)]
        with cassandra.paused():
            results = work(store, keys)
            assert {type(result) for result in results} == {StoreTransientError}
            monkeypatch.setattr(store._clock, "_offset_us", None)  # type: ignore[attr-defined]
            with pytest.raises(StoreTransientError):
                store.now_us()
            assert isinstance(store.read_attempts(keys[:1])[0], StoreTransientError)
        deadline = time.monotonic() + BACK_S
        while not is_well(results := work(store, keys)):
            assert time.monotonic() < deadline, results
        reads = [result for result in results if isinstance(result, AttemptsRead)]
        assert all(len(read.attempts) == 1 for read in reads)
        store.close()

    def test_killed_and_started_again(
        self, cassandra: CassandraServer, store: CassandraStore
    ) -> None:
        keys = [new_key() for _ in range(20)]
        assert is_well(work(store, keys))
        time.sleep(1.2)  # the commit log is written each second
        with cassandra.down(kill=True):
            results = work(store, keys)
            assert {type(result) for result in results} == {StoreTransientError}
            with pytest.raises(ServiceUnavailableError):
                list(store.scan("aggregates", Selection()))
        deadline = time.monotonic() + BACK_S
        while not is_well(results := work(store, keys)):
            assert time.monotonic() < deadline, results
            time.sleep(0.1)
        assert all(len(r.attempts) == 1 for r in results if isinstance(r, AttemptsRead))
        assert len(list(store.scan("attempts", Selection(course_id=keys[0].course_id)))) == 1


class TestRefused:
    """One item is refused; the others of its call are written, whatever they travel with."""

    def test_key_over_the_limit(self, store: CassandraStore) -> None:
        keys = [new_key() for _ in range(4)]
        keys[1] = keys[1]._replace(user_id="u" * 65_530)  # with the course it is over
        keys[2] = keys[2]._replace(batch_id="b" * 65_536)
        self.check(store.write_attempts([write(attempt(key)) for key in keys]))
        self.check(store.write_aggregates([update(key, {"a": 1.0}) for key in keys]))
        assert [len(store.read_attempts([key])[0].attempts) for key in (keys[0], keys[3])] == [1, 1]  # type: ignore[union-attr]
        # They are read beside each other, too.
        first, _, _, last = store.read_attempts(keys)
        assert len(first.attempts) == len(last.attempts) == 1  # type: ignore[union-attr]

    @pytest.mark.parametrize("megabytes", [9, 40])
    def test_mutation_over_the_limit(self, store: CassandraStore, megabytes: int) -> None:
        """Over half a segment of the commit log, and over what the protocol lets in."""
        keys = [new_key() for _ in range(3)]
        large = question(title="x" * (megabytes << 20))
        writes = [write(attempt(key)) for key in keys]
        writes.insert(1, write(attempt(new_key(), questions=[large])))
        first, refused, *others = store.write_attempts(writes)
        assert isinstance(refused, StoreRefusedError)
        assert len(str(refused)) < 500
        assert [first, *others] == [None] * 3
        reads = store.read_attempts(keys)
        assert [len(read.attempts) for read in reads] == [1, 1, 1]  # type: ignore[union-attr]

    def test_group_that_is_refused_is_sent_one_by_one(self, store: CassandraStore) -> None:
        """Small rows travel together; the one at fault must not take the others with it."""
        keys = [new_key() for _ in range(4)]
        writes = [write(attempt(key)) for key in keys]
        lowest = -(2**63)  # the one write time that Cassandra does not take
        writes[2] = write(attempt(keys[2]), write_us=lowest)
        first, second, refused, fourth = store.write_attempts(writes)
        assert (first, second, fourth) == (None, None, None)
        assert isinstance(refused, StoreRefusedError)
        updates = [update(key, {"a": 1.0}, lowest if key == keys[2] else 5) for key in keys]
        first, second, refused, fourth = store.write_aggregates(updates)
        assert (first, second, fourth) == (None, None, None)
        assert isinstance(refused, StoreRefusedError)
        assert [row.agg for row in store.read_aggregates(keys)] == [  # type: ignore[union-attr]
            *([{"a": 1}] * 2),
            {},
            {"a": 1},
        ]

    def check(self, faults: list[Any]) -> None:
        first, *over, last = faults
        assert (first, last) == (None, None)
        assert all(isinstance(fault, StoreRefusedError) for fault in over)


class TestPermissions:
    def test_missing_one_is_a_setting_to_correct(
        self, secured_cassandra: CassandraServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with secured_cassandra.session() as session:
            create_tables(session, "read_only")
            session.execute("CREATE ROLE looker WITH PASSWORD = 'looker' AND LOGIN = true")
            session.execute("GRANT SELECT ON KEYSPACE read_only TO looker")
        monkeypatch.setenv("CASSANDRA_PASSWORD", "looker")
        assert secured_cassandra.tls is not None
        store = open_store(
            StoreConfig(
                f"cassandra://{secured_cassandra.host}:{secured_cassandra.port}/read_only"
                f"?username=looker&ca={secured_cassandra.tls.ca}"
            )
        )
        key = new_key()
        assert list(store.scan("aggregates", Selection())) == []
        for call in (
            lambda: store.write_attempts([write(attempt(key))]),
            lambda: store.write_aggregates([update(key, {"a": 1.0})]),
        ):
            with pytest.raises(AddressError, match=r"no MODIFY permission.*; grant it") as error:
                call()
            assert "\n" not in str(error.value)
        assert is_well(store.read_attempts([key]))
        store.close()


class TestResources:
    def test_close_leaves_nothing(self, address: str) -> None:
        process = psutil.Process()
        port = int(address.rpartition(":")[2].partition("/")[0])

        def connections() -> int:
            return sum(
                bool(found.raddr) and found.raddr.port == port
                for found in process.net_connections("tcp")
            )

        # A session of the tests' own may still be connecting again, after the test before.
        looks: list[int] = []

        def settled() -> bool:
            looks.append(connections())
            return len(looks) > 20 and len(set(looks[-20:])) == 1

        assert wait_for(settled)
        before = connections()
        threads = set(threading.enumerate())
        store = open_store(StoreConfig(address))
        work(store, [new_key() for _ in range(200)])
        assert connections() - before == 2  # one for the node, one to hear of changes
        store.close()
        assert wait_for(lambda: connections() == before)

        def is_ours(thread: threading.Thread) -> bool:
            return thread not in threads and thread.name != "event_loop"  # the driver's, for all

        assert wait_for(lambda: not any(map(is_ours, threading.enumerate())))

    def test_opens_again_after_it_was_closed(self, address: str) -> None:
        key = new_key()
        for number in range(3):
            store = open_store(StoreConfig(address))
            assert store.write_attempts([write(attempt(key, f"a{number}"))]) == [None]
            assert len(store.read_attempts([key])[0].attempts) == number + 1  # type: ignore[union-attr]
            store.close()


def wait_for(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + BACK_S
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True
