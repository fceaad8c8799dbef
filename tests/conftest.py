"""Real servers as fixtures: each is started once a run, by the first test that asks for it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import settings

from tests.servers.cassandra_pair import CassandraPair
from tests.servers.cassandra_server import CassandraServer, create_tables
from tests.servers.kafka_server import KafkaServer
from tests.servers.redis_server import RedisServer
from tests.servers.tls import make_tls

settings.register_profile("ci", max_examples=100, deadline=None, derandomize=False, print_blob=True)
settings.register_profile("soak", settings.get_profile("ci"), max_examples=2_000)
settings.load_profile("ci")

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def cassandra(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CassandraServer]:
    """A Cassandra node that is open to all."""
    server = CassandraServer(tmp_path_factory.mktemp("cassandra")).start()
    yield server
    server.kill()


@pytest.fixture(scope="session")
def cassandra_pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CassandraPair]:
    """Two Cassandra nodes of one cluster: half a minute to start, and a gigabyte."""
    pair = CassandraPair(tmp_path_factory.mktemp("cassandra-pair"))
    yield pair.start()
    pair.kill()


@pytest.fixture(scope="session")
def secured_cassandra(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CassandraServer]:
    """A Cassandra node that wants TLS and a password; `tls`, `username`, `password` say which."""
    folder = tmp_path_factory.mktemp("secured-cassandra")
    tls = make_tls(folder / "tls")
    server = CassandraServer(folder, password_auth=True, tls=tls, heap="512m").start()
    yield server
    server.kill()


@pytest.fixture(scope="session")
def cassandra_session(cassandra: CassandraServer) -> Iterator[Any]:
    """A session of the driver on `cassandra`, for a test's own statements; rows are tuples."""
    with cassandra.session() as session:
        yield session


@pytest.fixture
def keyspace(cassandra_session: Any) -> Iterator[Callable[..., str]]:
    """`keyspace(**options of create_tables)` makes a keyspace of this test's own, and names it."""
    made: list[str] = []

    def make(**options: Any) -> str:
        name = f"ks_{next(_numbers)}"
        made.append(name)
        create_tables(cassandra_session, name, **options)
        return name

    yield make
    for name in made:
        cassandra_session.execute(f"DROP KEYSPACE IF EXISTS {name}")


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaServer]:
    """A Kafka broker; `bootstrap` is open to all, `sasl_bootstrap` wants a login."""
    server = KafkaServer(tmp_path_factory.mktemp("kafka")).start()
    yield server
    server.kill()


@pytest.fixture(scope="session")
def secured_kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaServer]:
    """A Kafka broker that also listens with TLS; `scram_bootstrap` wants a password by SCRAM."""
    folder = tmp_path_factory.mktemp("secured-kafka")
    server = KafkaServer(folder, tls=make_tls(folder / "tls"), heap="256m").start()
    yield server
    server.kill()


@pytest.fixture
def topic(kafka: KafkaServer) -> Callable[..., str]:
    """`topic(partitions=1, **config)` makes a topic of this test's own, and names it."""

    def make(partitions: int = 1, **config: object) -> str:
        return kafka.create_topic(f"topic-{next(_numbers)}", partitions, **config)

    return make


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A Redis server; `url` is its first database."""
    server = RedisServer(tmp_path_factory.mktemp("redis")).start()
    yield server
    server.kill()
