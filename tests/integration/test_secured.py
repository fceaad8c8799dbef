"""Kafka with SCRAM and TLS, Cassandra with a password and TLS: a whole run, and wrong ones."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from kafka.admin import ScramMechanism, UserScramCredentialUpsertion
from kafka.errors import KafkaError

from group_scores.runners.simulate import Simulation, simulate
from group_scores.stores import AddressError
from group_scores.transforms.kafka.address import KafkaAddress
from group_scores.transforms.kafka.client import close_quietly, open_consumer
from group_scores.transforms.kafka.inner import topics_of
from tests.command_line import invoke, refused
from tests.integration.pipeline_runs import (
    Tables,
    arguments,
    assert_holds_nothing_of,
    consume,
    dead_letter_differences,
    differences,
    produce,
)
from tests.servers.cassandra_server import CassandraServer, create_tables
from tests.servers.kafka_server import KafkaServer
from tests.servers.process import LOOPBACK
from tests.servers.tls import make_tls

PASSWORD = "p1peline-w0rd"
WRONG = "wr0ng-w0rd"
TOPIC = "guarded"
KEYSPACE = "guarded"
TWO_WORKERS = ("--direct_running_mode", "multi_processing", "--direct_num_workers", "2")
UNNAMED = "127.0.0.3"  # not in the certificate
START_S = 15.0


@dataclass(frozen=True)
class Guarded:
    """The addresses of a topic and a keyspace to which only the right ones are let in."""

    source: str
    store: str
    kafka_port: int
    cassandra_port: int
    kafka_password: str


@pytest.fixture(scope="module")
def guarded(secured_kafka: KafkaServer, secured_cassandra: CassandraServer) -> Guarded:
    for name, partitions in ((TOPIC, 2), (f"{TOPIC}.failed", 1)):
        secured_kafka.create_topic(name, partitions)
    with secured_cassandra.session() as session:
        create_tables(session, KEYSPACE)
        session.execute(f"CREATE ROLE pipeline WITH PASSWORD = '{PASSWORD}' AND LOGIN = true")
        for right in ("SELECT", "MODIFY"):
            session.execute(f"GRANT {right} ON KEYSPACE {KEYSPACE} TO pipeline")
    assert secured_kafka.tls
    assert secured_cassandra.tls
    login = f"mechanism=SCRAM-SHA-512&username={secured_kafka.username}"
    return Guarded(
        source=f"kafka://{secured_kafka.scram_bootstrap}/{TOPIC}?{login}&ca={secured_kafka.tls.ca}",
        store=f"cassandra://{secured_cassandra.host}:{secured_cassandra.port}/{KEYSPACE}"
        f"?username=pipeline&ca={secured_cassandra.tls.ca}",
        kafka_port=secured_kafka.scram_port,
        cassandra_port=secured_cassandra.port,
        kafka_password=secured_kafka.password,
    )


@pytest.fixture(autouse=True)
def secrets(guarded: Guarded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One password in a file, as containers are given theirs, the other in the environment."""
    (tmp_path / "password").write_text(guarded.kafka_password + "\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KAFKA_PASSWORD_FILE", str(tmp_path / "password"))
    monkeypatch.delenv("KAFKA_PASSWORD", raising=False)
    monkeypatch.setenv("CASSANDRA_PASSWORD", PASSWORD)


def test_a_run_equals_the_recomputation_and_logs_nothing_of_anybody(
    guarded: Guarded, secured_kafka: KafkaServer
) -> None:
    """Two worker processes, every kind of invalid event, and all that there is to log."""
    events = list(simulate(Simulation(500, 91, redeliver=0.1, shuffle=0.2, invalid=0.3)))
    messages = [event for _, event in events]
    produce(secured_kafka.bootstrap, TOPIC, events)
    words = arguments("run", *TWO_WORKERS, source=guarded.source, store=guarded.store)
    words += ["--summary", "json", "--debug", "--log-format", "json"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    letters = consume(secured_kafka.bootstrap, f"{TOPIC}.failed")
    assert summary["events"] == len(messages)
    assert summary["dead_letters"] == len(letters) > 100
    assert not dead_letter_differences(letters, messages)
    assert not differences(Tables.read(guarded.store), messages)

    lines = done.stderr.splitlines()
    loggers = {json.loads(line)["logger"].partition(".")[0] for line in lines}
    assert {"apache_beam", "cassandra", "group_scores", "kafka"} <= loggers
    assert_holds_nothing_of(messages, done.stderr)
    for password in (PASSWORD, guarded.kafka_password):
        assert password not in done.stderr + done.stdout


@contextlib.contextmanager
def forwarded(port: int) -> Iterator[int]:
    """The same port on an address that is not in the server's certificate."""

    def copy(one: socket.socket, other: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := one.recv(1 << 16):
                other.sendall(data)
        with contextlib.suppress(OSError):
            other.shutdown(socket.SHUT_RDWR)

    with contextlib.ExitStack() as opened:
        server = opened.enter_context(socket.create_server((UNNAMED, 0)))

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    ends = server.accept()[0], socket.create_connection((LOOPBACK, port))
                    for one, other in (ends, ends[::-1]):
                        opened.callback(one.close)
                        threading.Thread(target=copy, args=(one, other), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        yield server.getsockname()[1]


CASES = {
    "kafka: wrong password": "refuses user 'scores'; check username= and KAFKA_PASSWORD",
    "kafka: no password": "no password for user 'scores' of kafka://{at}/guarded; set KAFKA_PASS",
    "kafka: wrong authority": "the certificate of {at} is not accepted (",
    "kafka: no authority": "is not accepted (self-signed certificate in certificate chain); "
    "give the certificate of its authority as ca=",
    "kafka: wrong host": "is not accepted (IP address mismatch, certificate is not valid for "
    "'127.0.0.3'",
    "kafka: in the clear": "{at} wants TLS; write security=SASL_SSL",
    "kafka: no login": "{at} wants a login; write security=SASL_SSL&username=NAME",
    "kafka: no mechanism": "{at} does not take mechanism=PLAIN (it takes SCRAM-SHA-",
    "cassandra: wrong password": "does not let the user 'pipeline' in; correct ?username= or the "
    "password in CASSANDRA_PASSWORD",
    "cassandra: no password": "but CASSANDRA_PASSWORD is not set; set CASSANDRA_PASSWORD in",
    "cassandra: wrong authority": "does not vouch for (",
    "cassandra: no authority": "is a TLS port; give ca=",
    "cassandra: wrong host": "certificate is not valid for '127.0.0.3'",
    "cassandra: no login": "wants a login; give ?username=",
}


@pytest.mark.parametrize("case", CASES)
def test_what_is_wrong_is_one_line_and_holds_no_password(
    case: str, guarded: Guarded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, _, wrong = case.partition(": ")
    kafka = server == "kafka"
    address = guarded.source if kafka else guarded.store
    port = guarded.kafka_port if kafka else guarded.cassandra_port
    at = f"{LOOPBACK}:{port}"
    with contextlib.ExitStack() as opened:
        match wrong:
            case "wrong password" | "no password":
                monkeypatch.delenv("KAFKA_PASSWORD_FILE" if kafka else "CASSANDRA_PASSWORD")
                if wrong == "wrong password":
                    monkeypatch.setenv(f"{server.upper()}_PASSWORD", WRONG)
            case "wrong authority":
                stranger = make_tls(tmp_path / "stranger")
                address = re.sub(r"ca=[^&]*", f"ca={stranger.ca}", address)
            case "no authority":
                address = re.sub(r"&ca=[^&]*", "", address)
            case "wrong host":
                other = opened.enter_context(forwarded(port))
                address = address.replace(at, f"{UNNAMED}:{other}")
            case "in the clear":
                address = re.sub(r"&ca=[^&]*", "&security=SASL_PLAINTEXT", address)
            case "no login":
                address = re.sub(r"(mechanism|username)=[^&]*&", "", address)
            case "no mechanism":
                address = re.sub(r"mechanism=[^&]*&", "", address)
        if kafka:
            words = ("run", "--source", address, "--store", "sqlite:scores.db")
        else:
            (tmp_path / "events.jsonl").touch()
            words = ("run", "--source", "events.jsonl", "--store", address)
        began = time.monotonic()
        line = refused(*words)
        assert time.monotonic() - began < START_S
        assert CASES[case].format(at=at) in line
        done = invoke(*words, "--debug", "--log-format", "json")
    assert done.code == 2
    assert json.loads(done.err.splitlines()[-1])["message"] == line.partition(": ")[2]
    for password in (PASSWORD, WRONG, guarded.kafka_password):
        assert password not in done.err + done.out + line


def test_a_password_that_is_changed_meanwhile_is_taken_at_the_next_connection(
    guarded: Guarded, secured_kafka: KafkaServer
) -> None:
    """The connections of a client that is open are lost, as with a broker that starts again."""

    def change(password: str) -> None:
        login = UserScramCredentialUpsertion("rotating", ScramMechanism.SCRAM_SHA_512, password)
        with secured_kafka.admin() as admin:
            admin.alter_user_scram_credentials([login])

    def is_let_in() -> bool:
        for connection in list(consumer._manager._conns.values()):
            consumer._manager._net.call_soon_threadsafe(connection.close)
        with contextlib.suppress(KafkaError):
            return TOPIC in topics_of(consumer, 2.0)
        return False

    file = Path("password")
    change("first")
    file.write_text("first")
    address = KafkaAddress.parse(guarded.source.replace(secured_kafka.username, "rotating"))
    consumer = until(lambda: opened(address))  # the broker takes a moment to know of the user
    try:
        until(is_let_in)
        change("second")
        until(lambda: not is_let_in())
        file.write_text("second")
        until(is_let_in)
    finally:
        close_quietly(consumer)


def opened(address: KafkaAddress) -> Any:
    with contextlib.suppress(AddressError):
        return open_consumer(address)


def until(attempt: Callable[[], Any], timeout_s: float = 15.0) -> Any:
    """Repeat the attempt until it gives something, and return that."""
    deadline = time.monotonic() + timeout_s
    while not (found := attempt()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return found
