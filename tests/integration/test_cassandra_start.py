"""Starts that fail: one line that names the thing and the remedy, of the right kind, in time."""

from __future__ import annotations

import contextlib
import itertools
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from group_scores.stores import (
    AddressError,
    GroupScoresError,
    ServiceUnavailableError,
    StoreConfig,
    open_store,
)
from group_scores.stores.cassandra import session
from tests.servers.cassandra_server import CassandraServer, create_tables
from tests.servers.process import LOOPBACK, free_port
from tests.servers.tls import make_tls

PASSWORD = "s3cret-w0rd"
START_S = 15.0


def fail(address: str, kind: type[GroupScoresError], **options: Any) -> str:
    """Open the store, expect it to fail as it should, and return the one line it says."""
    started = time.monotonic()
    with pytest.raises(GroupScoresError) as error:
        open_store(StoreConfig(address, **options)).close()
    assert time.monotonic() - started < START_S
    line = str(error.value)
    assert type(error.value) is kind, line
    assert kind.exit_code == (2 if kind is AddressError else 1)
    assert "\n" not in line
    assert len(line) < 500
    assert "Traceback" not in line
    assert PASSWORD not in line
    assert error.value.__suppress_context__ or error.value.__context__ is None
    return line


@contextlib.contextmanager
def listener(
    answer: Callable[[socket.socket], None], hosts: Sequence[str] = (LOOPBACK,)
) -> Iterator[int]:
    """Listen on a port and do `answer` to each connection; yields its number."""
    port = free_port()
    servers = [socket.create_server((host, port)) for host in hosts]
    kept = []

    def accept(server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = server.accept()
                kept.append(connection)
                answer(connection)

    for server in servers:
        threading.Thread(target=accept, args=(server,), daemon=True).start()
    try:
        yield port
    finally:
        for opened in servers + kept:
            opened.close()


def say_nothing(_: socket.socket) -> None:
    """Keep the connection and never answer, as a host behind a dead firewall does."""


def say_something_else(connection: socket.socket) -> None:
    connection.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")


def hang_up(connection: socket.socket) -> None:
    connection.recv(1)
    connection.close()


class TestNetwork:
    def test_nothing_listens(self) -> None:
        address = f"cassandra://{LOOPBACK}:{free_port()}/ks"
        line = fail(address, ServiceUnavailableError)
        assert line.startswith(f"Cassandra at {address} does not answer (Connection refused)")
        assert "start it, or correct the address" in line

    def test_hosts_that_never_answer(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """However many: one that accepts nobody, so that not even a connection is made, too."""
        assert session._START_S < START_S - 2
        monkeypatch.setattr(session, "_START_S", 4.0)
        started = time.monotonic()
        hosts = [f"127.0.0.{number}" for number in range(1, 13)]
        with listener(say_nothing, hosts[1:]) as port, contextlib.ExitStack() as opened:
            opened.enter_context(socket.create_server((LOOPBACK, port), backlog=0))
            for _ in range(3):
                other = opened.enter_context(socket.socket())
                other.setblocking(False)
                other.connect_ex((LOOPBACK, port))
            line = fail(f"cassandra://{','.join(hosts)}:{port}/ks", ServiceUnavailableError)
        assert time.monotonic() - started < 5.0
        assert "does not answer (" in line
        assert "timed out" in line
        assert "Timed out creating connection" in line

    @pytest.mark.parametrize("answer", [say_something_else, hang_up])
    def test_port_that_speaks_no_cql(self, answer: Callable[[socket.socket], None]) -> None:
        kind = AddressError if answer is say_something_else else ServiceUnavailableError
        with listener(answer) as port:
            line = fail(f"cassandra://{LOOPBACK}:{port}/ks", kind)
        if kind is AddressError:
            assert "does not speak version 4 of Cassandra's protocol; correct the port" in line

    def test_name_that_does_not_resolve(self) -> None:
        line = fail("cassandra://no-such-host.invalid:9042/ks", AddressError)
        assert "no host of cassandra://no-such-host.invalid:9042/ks has an address" in line

    def test_closes_what_it_opened(self) -> None:
        before = threading.active_count()
        with listener(say_something_else) as port:
            fail(f"cassandra://{LOOPBACK}:{port}/ks", AddressError)
        deadline = time.monotonic() + 5
        while threading.active_count() > before + 1:  # the driver's one loop may stay
            assert time.monotonic() < deadline, threading.enumerate()
            time.sleep(0.05)


class TestSchema:
    """What is wrong with a keyspace is found before the first event is read."""

    @pytest.fixture
    def broken(
        self, cassandra: CassandraServer, cassandra_session: Any
    ) -> Iterator[Callable[..., str]]:
        numbers = itertools.count(1)
        made = []

        def make(*statements: str, **options: Any) -> str:
            name = f"broken_{next(numbers)}"
            made.append(name)
            create_tables(cassandra_session, name, **options)
            for statement in statements:
                cassandra_session.execute(statement.format(ks=name))
            return f"cassandra://{cassandra.host}:{cassandra.port}/{name}"

        yield make
        for name in made:
            cassandra_session.execute(f"DROP KEYSPACE {name}")

    def test_keyspace(self, cassandra: CassandraServer, broken: Callable[..., str]) -> None:
        address = broken()
        near = address.replace("broken_", "borken_")
        line = fail(near, AddressError)
        assert "keyspace 'borken_1' does not exist" in line
        assert "did you mean 'broken_1'?" in line
        line = fail(address.replace("broken_", "BROKEN_"), AddressError)
        assert "did you mean 'broken_1'?" in line
        line = fail(f"cassandra://{cassandra.host}:{cassandra.port}/elsewhere", AddressError)
        assert "create it" in line

    def test_tables(self, broken: Callable[..., str]) -> None:
        line = fail(broken("DROP TABLE {ks}.user_activity_agg"), AddressError)
        assert "keyspace 'broken_1' has no table 'user_activity_agg'; create it" in line

    def test_columns(self, broken: Callable[..., str]) -> None:
        line = fail(broken("ALTER TABLE {ks}.assessment_aggregator DROP grand_total"), AddressError)
        assert "ALTER TABLE broken_1.assessment_aggregator ADD grand_total text" in line

    def test_types_and_keys(self, broken: Callable[..., str]) -> None:
        """One of each; the unit tests of the schema have them all."""
        aggregates = (
            "DROP TABLE {ks}.user_activity_agg",
            "CREATE TABLE {ks}.user_activity_agg (activity_type text, activity_id text, "
            "user_id text, context_id text, agg map<text, bigint>, "
            "agg_last_updated map<text, timestamp>, "
            "PRIMARY KEY ((activity_type, activity_id, user_id), context_id))",
        )
        line = fail(broken(*aggregates), AddressError)
        assert "column 'agg' of broken_1.user_activity_agg is map<text, bigint>" in line
        attempts = (
            "DROP TABLE {ks}.assessment_aggregator",
            "DROP TYPE {ks}.question",
            "CREATE TYPE {ks}.question (id text, assess_ts timestamp)",
            "CREATE TABLE {ks}.assessment_aggregator (user_id text, course_id text, "
            "batch_id text, content_id text, attempt_id text, created_on timestamp, "
            "last_attempted_on timestamp, updated_on timestamp, total_score double, "
            "total_max_score double, grand_total text, question list<frozen<question>>, "
            "PRIMARY KEY ((user_id, course_id), batch_id, content_id, attempt_id))",
        )
        line = fail(broken(*attempts), AddressError)
        assert "ALTER TYPE broken_2.question ADD max_score double" in line
        by_content = attempts[-1].replace("), batch_id, content_id,", "), content_id, batch_id,")
        line = fail(broken(attempts[0], by_content), AddressError)
        assert "broken_3.assessment_aggregator is (user_id, course_id, content_id, bat" in line

    def test_data_center_and_consistency(
        self, cassandra: CassandraServer, broken: Callable[..., str]
    ) -> None:
        address = broken()
        line = fail(f"{address}?dc=datacentre1", AddressError)
        assert "'datacentre1' is not one of the cluster's (datacenter1)" in line
        assert "did you mean 'datacenter1'?" in line
        open_store(StoreConfig(f"{address}?dc=datacenter1")).close()
        line = fail(f"{address}?consistency=TREE", AddressError)
        assert "unknown consistency 'TREE'; did you mean 'THREE'?" in line
        line = fail(f"{address}?consistency=THREE", ServiceUnavailableError)
        assert "too few live nodes for the consistency THREE (1 of 3)" in line
        line = fail(f"{address}?consistncy=ONE", AddressError)
        assert "unknown option 'consistncy'" in line
        assert "did you mean 'consistency'?" in line
        for consistency in ("one", "ALL", "EACH_QUORUM", "local_one"):
            open_store(StoreConfig(f"{address}?consistency={consistency}")).close()

    def test_server_that_does_not_go_on(
        self, cassandra: CassandraServer, broken: Callable[..., str]
    ) -> None:
        address = broken()
        with cassandra.paused():
            line = fail(address, ServiceUnavailableError)
        assert "does not answer" in line


class TestSecured:
    @pytest.fixture(scope="class")
    def address(self, secured_cassandra: CassandraServer) -> str:
        with secured_cassandra.session() as session_:
            create_tables(session_, "secured")
            session_.execute(
                f"CREATE ROLE \"writer\" WITH PASSWORD = '{PASSWORD}' AND LOGIN = true"
            )
            session_.execute("CREATE ROLE reader WITH PASSWORD = 'reader' AND LOGIN = true")
            session_.execute("CREATE ROLE nobody WITH PASSWORD = 'nobody' AND LOGIN = true")
            session_.execute("GRANT SELECT ON KEYSPACE secured TO writer")
            session_.execute("GRANT MODIFY ON KEYSPACE secured TO writer")
            session_.execute("GRANT SELECT ON KEYSPACE secured TO reader")
        assert secured_cassandra.tls is not None
        host = f"cassandra://{secured_cassandra.host}:{secured_cassandra.port}"
        return f"{host}/secured?ca={secured_cassandra.tls.ca}"

    @pytest.fixture(autouse=True)
    def password(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("CASSANDRA_PASSWORD", PASSWORD)

    def test_lets_in_with_password_and_authority(self, address: str) -> None:
        store = open_store(StoreConfig(f"{address}&username=writer"))
        assert store.read_aggregates([]) == []
        assert PASSWORD not in repr(vars(store))
        assert PASSWORD not in repr(store)
        store.close()

    def test_address_of_the_node_is_checked(
        self, address: str, secured_cassandra: CassandraServer
    ) -> None:
        open_store(StoreConfig(f"{address.replace(LOOPBACK, 'localhost')}&username=writer")).close()
        tls = secured_cassandra.tls
        assert tls is not None
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(tls.cert, tls.key)

        def shake_hands(connection: socket.socket) -> None:
            with contextlib.suppress(OSError):
                context.wrap_socket(connection, server_side=True).close()

        with listener(shake_hands, ["127.0.0.3"]) as port:
            line = fail(f"cassandra://127.0.0.3:{port}/secured?ca={tls.ca}", AddressError)
        assert "certificate is not valid for '127.0.0.3'" in line

    def test_wrong_password(self, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
        line = fail(f"{address}&username=nobody", AddressError)
        assert "does not let the user 'nobody' in" in line
        assert "CASSANDRA_PASSWORD" in line
        line = fail(address, AddressError)
        assert "wants a login; give ?username=" in line
        monkeypatch.delenv("CASSANDRA_PASSWORD")
        line = fail(f"{address}&username=writer", AddressError)
        assert "names the user 'writer' but CASSANDRA_PASSWORD is not set" in line

    def test_password_in_the_address(self, address: str) -> None:
        for wrong in (
            address.replace("//", f"//writer:{PASSWORD}@"),
            f"{address}&password={PASSWORD}",
        ):
            assert "environment" in fail(wrong, AddressError)

    def test_wrong_authority(self, address: str, tmp_path: Path) -> None:
        other = make_tls(tmp_path)
        line = fail(f"{address.partition('ca=')[0]}ca={other.ca}&username=writer", AddressError)
        assert f"a certificate that ca={other.ca} does not vouch for" in line

    def test_files_that_are_no_certificates(self, address: str, tmp_path: Path) -> None:
        broken = tmp_path / "broken.pem"
        broken.write_text("no certificate")
        base = address.partition("ca=")[0]
        assert "give PEM files" in fail(f"{base}ca={broken}", AddressError)
        assert "cannot be read" in fail(f"{base}ca={tmp_path / 'none.pem'}", AddressError)

    def test_in_the_clear_to_a_tls_port(self, address: str) -> None:
        line = fail(f"{address.partition('?')[0]}?username=writer", AddressError)
        assert "is a TLS port; give ca=" in line

    def test_tls_to_a_port_in_the_clear(
        self, address: str, secured_cassandra: CassandraServer, cassandra: CassandraServer
    ) -> None:
        plain = address.replace(str(secured_cassandra.port), str(cassandra.port))
        line = fail(f"{plain}&username=writer", AddressError)
        assert "does not speak TLS" in line
        assert "drop ca=" in line

    def test_user_who_may_not_read(self, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("CASSANDRA_PASSWORD", "nobody")
        line = fail(f"{address}&username=nobody", AddressError)
        assert "no SELECT permission" in line
        assert "grant it" in line


def test_credentials_are_in_nothing_that_is_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CASSANDRA_PASSWORD", PASSWORD)
    from group_scores.stores.cassandra import CassandraAddress

    address = CassandraAddress.parse("cassandra://h:9042/ks?username=writer")
    provider = session._auth_provider(address)
    for thing in (address, StoreConfig(str(address)), provider):
        assert PASSWORD not in repr(thing)
        assert PASSWORD not in str(thing)
