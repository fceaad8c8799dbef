"""A cluster of two nodes: each statement goes to a node that holds what it is about."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from group_scores.scores import ActivityKey
from group_scores.stores import AttemptsRead, StoreConfig, StoreTransientError, open_store
from group_scores.stores.cassandra import (
    CassandraAddress,
    CassandraSourceAddress,
    CassandraStore,
)
from group_scores.stores.cassandra.identity import identity
from group_scores.stores.cassandra.scan_attempts import AttemptsReader, attempts_source
from group_scores.stores.cassandra.session import connect
from tests.servers.cassandra_pair import CassandraPair
from tests.servers.cassandra_server import create_tables
from tests.values import attempt, question, update, write

pytestmark = pytest.mark.soak  # two nodes take half a minute and a gigabyte to start


@pytest.fixture(params=[1, 2])
def address(
    cassandra_pair: CassandraPair, request: pytest.FixtureRequest
) -> Iterator[tuple[str, int]]:
    name = f"replicated_{request.param}"
    nodes = cassandra_pair.nodes
    with nodes[0].session(alone=True) as session:
        create_tables(session, name)
        session.execute(
            f"ALTER KEYSPACE {name} WITH replication = "
            f"{{'class': 'SimpleStrategy', 'replication_factor': {request.param}}}"
        )
        cassandra_pair.wait_until_agreed(name)
        yield f"cassandra://{nodes[0].host}:{nodes[0].port}/{name}", request.param
        session.execute(f"DROP KEYSPACE {name}")


def work(store: CassandraStore, keys: list[ActivityKey]) -> list[Any]:
    small = [question(resvalues=None, params=None)]
    return [
        *store.write_attempts([write(attempt(key, questions=small)) for key in keys]),
        *store.write_aggregates([update(key, {"a": 1.0}) for key in keys]),
        *store.read_attempts(keys),
        *store.read_aggregates(keys),
    ]


def test_statements_go_to_a_replica_and_share_it(
    address: tuple[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    text, replicas = address
    store = open_store(StoreConfig(text))
    assert isinstance(store, CassandraStore)
    sent: list[Any] = []
    execute_async = store._session.execute_async

    def remember(statement: Any, *args: Any, **options: Any) -> Any:
        future = execute_async(statement, *args, trace=True, **options)
        sent.append((statement, future))
        return future

    store.now_us()
    monkeypatch.setattr(store._session, "execute_async", remember)
    keys = [ActivityKey("course", f"user-{n}", "batch") for n in range(60)]
    results = work(store, keys)
    assert not any(isinstance(result, Exception) for result in results)
    assert len(sent) < len(results) / 3
    coordinators: Counter[str] = Counter()
    metadata = store._session.cluster.metadata
    for statement, future in sent:
        nodes = {
            host.address
            for host in metadata.get_replicas(statement.keyspace, statement.routing_key)
        }
        assert len(nodes) == replicas
        assert future.coordinator_host.address in nodes
        coordinators[future.coordinator_host.address] += 1
        if replicas == 1:
            # Nobody else has to be asked: all of it is on the node that was sent it.
            trace = future.get_query_trace(max_wait=10)
            assert {event.source for event in trace.events} == {future.coordinator_host.address}
    assert set(coordinators) == {"127.0.0.1", "127.0.0.2"}
    store.close()


def test_is_one_cluster_whichever_nodes_are_asked(
    address: tuple[str, int], cassandra_pair: CassandraPair
) -> None:
    text, _ = address
    nodes = cassandra_pair.nodes
    first, second = (node.host for node in nodes)

    def clusters() -> set[str | None]:
        found = set()
        for hosts in (first, f"{first},{second}", f"{second},{first}"):
            store = open_store(StoreConfig(text.replace(first, hosts, 1)))
            found.add(store.cluster)
            store.close()
        source = attempts_source(CassandraSourceAddress.parse(text.replace(first, second, 1)))
        reader = AttemptsReader(source)
        found.add(reader.cluster)
        reader.close()
        return found

    (cluster,) = clusters()
    assert cluster is not None
    assert all(f"@{host}" in cluster for host in (first, second))
    with nodes[1].down():
        assert identity_of(text) == cluster
    other = text.rpartition("/")[0] + "/system_schema"
    assert identity_of(other) != cluster


def identity_of(address: str) -> str:
    session = connect(CassandraAddress.parse(address))
    try:
        return identity(session, CassandraAddress.parse(address).keyspace)
    finally:
        session.cluster.shutdown()


def test_node_that_is_away_takes_only_its_own_with_it(
    address: tuple[str, int], cassandra_pair: CassandraPair
) -> None:
    text, replicas = address
    consistency = "ONE" if replicas == 2 else "LOCAL_QUORUM"
    store = open_store(StoreConfig(f"{text}?consistency={consistency}"))
    assert isinstance(store, CassandraStore)
    keys = [ActivityKey("course", f"user-{n}", "batch") for n in range(60)]
    assert not any(isinstance(result, Exception) for result in work(store, keys))
    with cassandra_pair.nodes[1].down():
        reads = store.read_attempts(keys)
        while any(isinstance(read, StoreTransientError) for read in reads) and replicas == 2:
            reads = store.read_attempts(keys)
        alive = sum(isinstance(read, AttemptsRead) for read in reads)
        assert alive == 60 if replicas == 2 else 0 < alive < 60
    while any(isinstance(result, Exception) for result in work(store, keys)):
        pass
    store.close()
