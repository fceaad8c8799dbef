"""The test servers themselves: they come up, answer, keep their data, and leave nothing behind."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from cassandra import OperationTimedOut
from cassandra.auth import PlainTextAuthProvider
from cassandra.cluster import NoHostAvailable, Session
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.errors import KafkaError

from group_scores.stores import java
from tests.servers import artifacts
from tests.servers.cassandra_server import CassandraServer, create_group_tables
from tests.servers.kafka_server import KafkaServer
from tests.servers.process import LOOPBACK, Server, ServerError, free_port
from tests.servers.redis_server import RedisServer
from tests.servers.tls import make_tls

ROOT = Path(__file__).parents[2]


@contextlib.contextmanager
def timed_out(client: type[Exception]) -> Iterator[None]:
    """Expect `client` to give up, and not at once."""
    started = time.monotonic()
    with pytest.raises(client):
        yield
    assert time.monotonic() - started > 0.4


class TestCassandra:
    @pytest.fixture
    def table(self, cassandra_session: Session, keyspace: Callable[..., str]) -> str:
        name = f"{keyspace()}.kept"
        cassandra_session.execute(f"CREATE TABLE {name} (id int PRIMARY KEY, word text)")
        return name

    def write(self, session: Session, table: str, number: int) -> None:
        session.execute(f"INSERT INTO {table} (id, word) VALUES (%s, 'w')", (number,))

    def read(self, session: Session, table: str) -> list[int]:
        return sorted(row[0] for row in session.execute(f"SELECT id FROM {table}"))

    def test_keeps_its_rows_through_a_kill(self, cassandra: CassandraServer, table: str) -> None:
        place = cassandra.host, cassandra.port
        with cassandra.session() as session:
            self.write(session, table, 1)
            time.sleep(1.5)  # the commit log is synced each second
            with cassandra.down(kill=True):
                assert not cassandra.running
            assert place == (cassandra.host, cassandra.port)
            assert self.read(session, table) == [1]

    def test_answers_nothing_while_it_is_paused(
        self, cassandra: CassandraServer, cassandra_session: Session, table: str
    ) -> None:
        self.write(cassandra_session, table, 1)
        with cassandra.paused(), timed_out(OperationTimedOut):
            cassandra_session.execute(f"SELECT id FROM {table}", timeout=0.5)
        assert self.read(cassandra_session, table) == [1]

    def test_is_told_what_to_do_by_nodetool(self, cassandra: CassandraServer) -> None:
        assert re.search(rf"UN +{re.escape(cassandra.host)} ", cassandra.nodetool("status"))
        with pytest.raises(ServerError, match="no-such-command"):
            cassandra.nodetool("no-such-command")

    @pytest.mark.parametrize(
        ("attempts_key", "partition", "clustering"),
        [
            ("user", ["user_id", "course_id"], ["batch_id", "content_id", "attempt_id"]),
            ("course", ["course_id"], ["batch_id", "user_id", "content_id", "attempt_id"]),
        ],
    )
    def test_has_either_key_of_the_attempts(
        self,
        cassandra_session: Session,
        keyspace: Callable[..., str],
        attempts_key: str,
        partition: list[str],
        clustering: list[str],
    ) -> None:
        name = keyspace(attempts_key=attempts_key)
        table = cassandra_session.cluster.metadata.keyspaces[name].tables["assessment_aggregator"]
        assert [column.name for column in table.partition_key] == partition
        assert [column.name for column in table.clustering_key] == clustering
        assert table.columns["question"].cql_type == "list<frozen<question>>"

    @pytest.mark.parametrize("with_aggregates", [True, False])
    @pytest.mark.parametrize("with_agg_details", [True, False])
    def test_has_the_aggregates_of_old_and_new_deployments(
        self,
        cassandra_session: Session,
        keyspace: Callable[..., str],
        with_aggregates: bool,
        with_agg_details: bool,
    ) -> None:
        name = keyspace(with_aggregates=with_aggregates, with_agg_details=with_agg_details)
        table = cassandra_session.cluster.metadata.keyspaces[name].tables["user_activity_agg"]
        assert ("aggregates" in table.columns) is with_aggregates
        assert ("agg_details" in table.columns) is with_agg_details
        assert {"agg", "agg_last_updated"} < set(table.columns)

    def test_has_the_members_of_groups(
        self, cassandra_session: Session, keyspace: Callable[..., str]
    ) -> None:
        name = keyspace()
        create_group_tables(cassandra_session, name)
        tables = cassandra_session.cluster.metadata.keyspaces[name].tables
        assert "visited" in tables["group_member"].columns

    def test_wants_a_password_and_tls_where_it_is_secured(
        self, secured_cassandra: CassandraServer, tmp_path: Path
    ) -> None:
        with secured_cassandra.session() as session:
            roles = {row[0] for row in session.execute("SELECT role FROM system_auth.roles")}
            assert "cassandra" in roles
        refused = {
            "username .* and/or password are incorrect": {
                "auth_provider": PlainTextAuthProvider("cassandra", "wrong")
            },
            "requires authentication": {"auth_provider": None},
            "certificate verify failed": {"ssl_context": self.trusting(make_tls(tmp_path).ca)},
        }
        for reason, options in refused.items():
            with (
                pytest.raises(NoHostAvailable, match=reason),
                secured_cassandra.session(**options),
            ):
                pass

    def trusting(self, ca: Path) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(ca))


class TestKafka:
    def send(self, kafka: KafkaServer, topic: str, *values: bytes) -> None:
        producer = KafkaProducer(bootstrap_servers=kafka.bootstrap)
        for value in values:
            producer.send(topic, value, partition=0).get(20)
        producer.close()

    def read(self, kafka: KafkaServer, topic: str, **options: Any) -> list[tuple[int, bytes]]:
        """The offsets and values of partition 0, up to its end."""
        settings = {"bootstrap_servers": kafka.bootstrap, "group_id": None} | options
        consumer = KafkaConsumer(**settings)
        partition = TopicPartition(topic, 0)
        found: list[tuple[int, bytes]] = []
        try:
            consumer.assign([partition])
            consumer.seek_to_beginning(partition)
            end = consumer.end_offsets([partition])[partition]
            while consumer.position(partition) < end:
                for records in consumer.poll(1000).values():
                    found += [(record.offset, record.value) for record in records]
        finally:
            consumer.close()
        return found

    def test_keeps_its_records_through_restart_and_kill(
        self, kafka: KafkaServer, topic: Callable[..., str]
    ) -> None:
        place = kafka.bootstrap
        name = topic()
        self.send(kafka, name, b"1")
        with kafka.down():
            assert not kafka.running
        self.send(kafka, name, b"2")
        with kafka.down(kill=True):
            assert not kafka.running
        assert place == kafka.bootstrap
        assert self.read(kafka, name) == [(0, b"1"), (1, b"2")]

    def test_answers_nothing_while_it_is_paused(
        self, kafka: KafkaServer, topic: Callable[..., str]
    ) -> None:
        name = topic()
        self.send(kafka, name, b"1")
        producer = KafkaProducer(bootstrap_servers=kafka.bootstrap)
        producer.partitions_for(name)
        with kafka.paused():
            sent = producer.send(name, b"2", partition=0)
            time.sleep(1)
            assert not sent.is_done
        sent.get(20)
        producer.close()
        assert self.read(kafka, name) == [(0, b"1"), (1, b"2")]

    def test_makes_grows_and_trims_topics(
        self, kafka: KafkaServer, topic: Callable[..., str]
    ) -> None:
        name = topic(partitions=4, cleanup_policy="compact")
        kafka.create_partitions(name, 5)
        with kafka.admin() as admin:
            (shown,) = admin.describe_topics([name])
        assert len(shown["partitions"]) == 5
        trimmed = topic()
        self.send(kafka, trimmed, b"1", b"2", b"3")
        kafka.delete_records(trimmed, {0: 2})
        assert self.read(kafka, trimmed) == [(2, b"3")]

    def test_makes_no_topic_by_itself(self, kafka: KafkaServer) -> None:
        consumer = KafkaConsumer(bootstrap_servers=kafka.bootstrap)
        assert not consumer.partitions_for_topic("never-made")
        consumer.close()
        with kafka.admin() as admin:
            assert "never-made" not in admin.list_topics()

    def test_wants_a_login_on_its_second_listener(
        self, kafka: KafkaServer, topic: Callable[..., str]
    ) -> None:
        name = topic()
        self.send(kafka, name, b"1")
        login = {
            "bootstrap_servers": kafka.sasl_bootstrap,
            "security_protocol": "SASL_PLAINTEXT",
            "sasl_mechanism": "PLAIN",
            "sasl_plain_username": kafka.username,
        }
        right = self.read(kafka, name, **login, sasl_plain_password=kafka.password)
        assert right == [(0, b"1")]
        with pytest.raises(KafkaError):
            self.read(kafka, name, **login, sasl_plain_password="wrong", bootstrap_timeout_ms=2000)


class TestRedis:
    def test_keeps_its_keys_through_restart_and_kill(self, redis_server: RedisServer) -> None:
        with redis_server.client() as client:
            client.sadd("kept", "1")
            with redis_server.down():
                assert not redis_server.running
            client.sadd("kept", "2")
            with redis_server.down(kill=True):
                assert not redis_server.running
            assert client.smembers("kept") == {"1", "2"}

    def test_answers_nothing_while_it_is_paused(self, redis_server: RedisServer) -> None:
        with (
            redis_server.paused(),
            socket.create_connection(
                (redis_server.host, redis_server.port), timeout=0.5
            ) as connection,
        ):
            connection.sendall(b"PING\r\n")
            with timed_out(TimeoutError):
                connection.recv(16)
        with redis_server.client() as client:
            assert client.ping()


class TestAnyServer:
    def test_that_does_not_come_up_shows_its_log(self, tmp_path: Path) -> None:
        server = KafkaServer(tmp_path, settings={"num.io.threads": "none"})
        with pytest.raises(ServerError, match=r"num\.io\.threads"):
            server.start()
        with pytest.raises(ServerError, match="kafka is not running"):
            _ = server.pid

    def test_that_is_never_ready_is_killed(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        server = RedisServer(tmp_path)
        monkeypatch.setattr(server, "ready", lambda: False)
        monkeypatch.setattr(Server, "start_timeout_s", 1.0)
        monkeypatch.delattr(RedisServer, "start_timeout_s")
        with pytest.raises(
            ServerError, match=r"redis was not ready in 1 s; the end of .*redis\.log"
        ):
            server.start()
        assert not server.running

    def test_that_was_paused_can_be_stopped(self, tmp_path: Path) -> None:
        server = RedisServer(tmp_path).start()
        server.pause()
        server.stop()
        assert not server.running
        assert "Redis is now ready to exit" in server.tail()

    def test_without_its_jars_names_the_mend(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        for server in (CassandraServer(tmp_path / "c"), KafkaServer(tmp_path / "k")):
            with pytest.raises(ServerError, match=r"run `make servers`$"):
                server.start()

    def test_without_redis_names_the_mend(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("PATH", str(tmp_path))
        with pytest.raises(ServerError, match="run `make servers`"):
            RedisServer(tmp_path).start()

    @pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
    def test_goes_when_its_starter_goes(self, tmp_path: Path, number: signal.Signals) -> None:
        script = f"""
            import pathlib, threading, time
            from tests.servers.redis_server import RedisServer
            server = RedisServer(pathlib.Path({str(tmp_path)!r}))
            thread = threading.Thread(target=server.start)  # and outlives the thread that asked
            thread.start()
            thread.join()
            time.sleep(0.3)
            print(server.pid, flush=True)
            time.sleep(60)
        """
        with subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(script)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        ) as starter:
            assert starter.stdout is not None
            server = psutil.Process(int(starter.stdout.readline()))
            assert server.name() == "redis-server"
            starter.send_signal(number)
        server.wait(10)

    def test_is_left_alone_by_a_fork_that_ends(self, tmp_path: Path) -> None:
        script = f"""
            import os, pathlib, sys
            from tests.servers.redis_server import RedisServer
            server = RedisServer(pathlib.Path({str(tmp_path)!r})).start()
            if os.fork() == 0:
                sys.exit()
            os.wait()
            assert server.running and server.ready()
        """
        command = [sys.executable, "-c", textwrap.dedent(script)]
        subprocess.run(command, cwd=ROOT, check=True, timeout=60)


class TestArtifacts:
    def stand_in(self, folder: Path, name: str, script: str) -> None:
        folder.mkdir(exist_ok=True)
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)

    @pytest.fixture
    def elsewhere(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """An empty cache, and a folder in front of the PATH for programs that stand in."""
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
        return tmp_path / "bin"

    def test_a_broken_download_is_not_taken_for_a_whole_one(self, elsewhere: Path) -> None:
        begin = "for word; do case $word in -DoutputDirectory=*) out=${word#*=};; esac; done\n"
        begin += 'mkdir -p "$out"; touch "$out/a.jar"\n'
        self.stand_in(elsewhere, "mvn", begin + "echo no network; exit 1")
        with pytest.raises(ServerError, match="could not fetch the jars of kafka"):
            artifacts.fetch("kafka")
        assert list(java.cache().iterdir()) == []
        self.stand_in(elsewhere, "mvn", begin)
        artifacts.fetch("kafka")
        assert [jar.name for jar in artifacts.jars("kafka").iterdir()] == ["a.jar"]
        self.stand_in(elsewhere, "mvn", "exit 1")
        artifacts.fetch("kafka")  # there already

    def test_missing_tools_are_named_in_one_line(
        self, tmp_path: Path, elsewhere: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("PATH", str(elsewhere))
        monkeypatch.delenv("JAVA_HOME", raising=False)
        with pytest.raises(ServerError, match=r"mvn is not on the PATH: install it .*maven\)"):
            artifacts.fetch("kafka")
        with pytest.raises(ServerError, match=r"redis-server is not on the PATH: install it"):
            artifacts.install_redis()
        monkeypatch.setattr(java, "JVMS", tmp_path)
        java.program.cache_clear()
        with pytest.raises(ServerError, match=r"need Java 17 to 23 \(none found\): install one"):
            artifacts.java()
        self.stand_in(elsewhere, "java", """echo 'openjdk version "11.0.2" 2019-01-15' >&2""")
        with pytest.raises(ServerError, match=r"\(.*/java is 11\)"):
            artifacts.java()
        self.stand_in(elsewhere, "java", """echo 'openjdk version "21" 2023-09-19' >&2""")
        assert artifacts.java() == str(elsewhere / "java")
        java.program.cache_clear()


def test_free_port_is_not_one_that_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()  # of those that no outgoing connection is given, when it is free again
    with socket.create_server((LOOPBACK, port)):
        monkeypatch.setattr("tests.servers.process.PORTS", range(port, port + 1))
        monkeypatch.setenv("PYTEST_XDIST_WORKER", "gw0")  # whose part it is then
        with pytest.raises(ServerError, match="no free port"):
            free_port()
    assert free_port() == port
