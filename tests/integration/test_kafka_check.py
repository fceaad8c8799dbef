"""check_topic: one line that names what is wrong and its mend, soon, whatever is out there."""

from __future__ import annotations

import logging
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest
from kafka import KafkaProducer

from group_scores.stores.errors import AddressError, GroupScoresError, ServiceUnavailableError
from group_scores.transforms.kafka.address import KafkaAddress
from group_scores.transforms.kafka.check import check_topic
from group_scores.transforms.kafka.client import open_consumer
from group_scores.transforms.kafka.group import GroupOffsets
from group_scores.transforms.kafka.reader import KafkaReader
from tests.servers.kafka_server import NOWHERE, SCRAM, KafkaServer
from tests.servers.tls import TlsFiles, make_tls

MakeTopic = Callable[..., str]


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> TlsFiles:
    return make_tls(tmp_path_factory.mktemp("tls"))


@contextmanager
def listening(serve: Callable[[socket.socket], None] | None, backlog: int = 8) -> Iterator[int]:
    """A port where each connection is given to `serve`; with None nobody ever accepts."""
    with ExitStack() as stack:
        server = stack.enter_context(socket.socket())
        server.bind(("127.0.0.1", 0))
        server.listen(backlog)

        def accept() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                stack.callback(connection.close)
                assert serve is not None
                threading.Thread(target=serve, args=(connection,), daemon=True).start()

        if serve is not None:
            threading.Thread(target=accept, daemon=True).start()
        yield server.getsockname()[1]


def refused(text: str, error: type[GroupScoresError], timeout_s: float = 15) -> str:
    """Check the address, that it is refused in time with one line, and return the line."""
    began = time.monotonic()
    with pytest.raises(error) as caught:
        check_topic(KafkaAddress.parse(text), timeout_s)
    assert time.monotonic() - began < timeout_s + 0.5
    assert type(caught.value) is error
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_offsets_for_a_source_and_a_sink(kafka: KafkaServer, topic: MakeTopic) -> None:
    name = topic(2)
    producer = KafkaProducer(bootstrap_servers=kafka.bootstrap)
    for _ in range(5):
        producer.send(name, b"x", partition=1)
    producer.close(timeout=10)
    text = f"kafka://{kafka.bootstrap}/{name}"
    source = KafkaAddress.parse(f"{text}?group={name}")
    GroupOffsets(source).commit({1: 2})
    assert check_topic(source) == {0: (0, 0), 1: (2, 5)}
    assert check_topic(KafkaAddress.parse(text, role="sink")) == {0: (0, 0), 1: (0, 5)}


def test_one_server_of_several_is_enough(kafka: KafkaServer, topic: MakeTopic) -> None:
    name = topic()
    with listening(None) as silent:
        servers = f"127.0.0.1:1,127.0.0.1:{silent},{kafka.bootstrap}"
        address = KafkaAddress.parse(f"kafka://{servers}/{name}")
        assert check_topic(address) == {0: (0, 0)}
        reader = KafkaReader(address, retry_s=30)
        reader.assign({0: 0}, {0: 0})
        reader.close()


def test_nobody_there() -> None:
    assert "127.0.0.1:1 (Connection refused); start the broker" in refused(
        "kafka://127.0.0.1:1/t", ServiceUnavailableError
    )
    assert "no-such-host.invalid:9092 is not known here" in refused(
        "kafka://no-such-host.invalid/t", ServiceUnavailableError
    )


def test_a_host_that_swallows_all() -> None:
    with listening(None, backlog=0) as port, ExitStack() as stack:
        for _ in range(4):  # with its backlog full, the kernel drops what knocks
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", port))
        line = refused(f"kafka://127.0.0.1:{port}/t", ServiceUnavailableError, timeout_s=3)
    assert f"nothing answers at 127.0.0.1:{port}" in line


def test_a_name_server_that_is_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "create_connection", lambda *_: time.sleep(60))
    line = refused("kafka://broker:9092/t", ServiceUnavailableError, timeout_s=1.5)
    assert "no answer about kafka://broker:9092/t in 2 s" in line


def test_a_port_that_says_nothing() -> None:
    with listening(lambda connection: None) as port:
        line = refused(f"kafka://127.0.0.1:{port}/t", ServiceUnavailableError, timeout_s=3)
        assert f"127.0.0.1:{port} accepts connections and does not answer" in line


@pytest.mark.parametrize("reply", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"", b"\0\0\0\4\1\2\3\4"])
def test_a_port_that_is_not_kafka(reply: bytes) -> None:
    def serve(connection: socket.socket) -> None:
        connection.recv(100)
        with suppress(OSError):
            connection.sendall(reply)
            connection.shutdown(socket.SHUT_RDWR)

    with listening(serve) as port:
        line = refused(f"kafka://127.0.0.1:{port}/t", AddressError)
        assert f"127.0.0.1:{port} answers, and not as Kafka does; check the port" in line


def test_a_controller_is_no_broker(kafka: KafkaServer) -> None:
    line = refused(f"kafka://127.0.0.1:{kafka.controller_port}/t", AddressError)
    assert "is a Kafka controller; give the address of a broker" in line


def test_a_topic_that_is_not_there(kafka: KafkaServer, topic: MakeTopic) -> None:
    name = topic()
    line = refused(f"kafka://{kafka.bootstrap}/{name}x", AddressError)
    assert f"topic '{name}x' does not exist on {kafka.bootstrap}; did you mean '{name}'?" in line


def test_logins(kafka: KafkaServer, topic: MakeTopic, monkeypatch: pytest.MonkeyPatch) -> None:
    name = topic()
    where = f"kafka://{kafka.sasl_bootstrap}/{name}"
    login = f"{where}?security=sasl_plaintext&username={kafka.username}"
    monkeypatch.setenv("KAFKA_PASSWORD", kafka.password)
    assert check_topic(KafkaAddress.parse(login)) == {0: (0, 0)}

    assert "wants a login; write security=SASL_PLAINTEXT&username=" in refused(where, AddressError)
    assert "(it takes PLAIN)" in refused(f"{login}&mechanism=SCRAM-SHA-256", AddressError)
    open_ = login.replace(kafka.sasl_bootstrap, kafka.bootstrap)
    assert "takes no login; write security=PLAINTEXT" in refused(open_, AddressError)
    encrypted = f"{where}?username={kafka.username}"
    assert "does not speak TLS; write security=SASL_PLAINTEXT" in refused(encrypted, AddressError)

    monkeypatch.setenv("KAFKA_PASSWORD", "wrong")
    line = refused(login, AddressError)
    assert f"refuses user '{kafka.username}'; check username= and KAFKA_PASSWORD" in line
    assert "wrong" not in line
    with pytest.raises(AddressError, match="refuses user"):  # and so says a worker later
        open_consumer(KafkaAddress.parse(login), timeout_s=1)
    monkeypatch.delenv("KAFKA_PASSWORD")
    assert "set KAFKA_PASSWORD" in refused(login, AddressError)


def test_tls_spoken_to_in_the_clear(tls: TlsFiles) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tls.cert, tls.key)

    def serve(connection: socket.socket) -> None:
        try:
            context.wrap_socket(connection, server_side=True).recv(1)
        except (ssl.SSLError, OSError):
            connection.close()

    with listening(serve) as port:
        where = f"kafka://127.0.0.1:{port}/t"
        assert "wants TLS; write security=SSL" in refused(where, AddressError)
        line = refused(f"{where}?security=SSL", AddressError)
        assert "is not accepted (" in line
        assert "as ca=" in line


def test_tls_to_a_broker_that_wants_a_certificate(
    secured_kafka: KafkaServer, tmp_path: Path
) -> None:
    tls = secured_kafka.tls
    assert tls is not None
    secured_kafka.create_topic("safe")
    safe = f"kafka://localhost:{secured_kafka.certified_port}/safe"
    access = f"ca={tls.ca}&cert={tls.cert}&key={tls.key}"
    assert check_topic(KafkaAddress.parse(f"{safe}?{access}")) == {0: (0, 0)}
    stranger = make_tls(tmp_path / "stranger")
    assert "is not accepted" in refused(f"{safe}?ca={stranger.ca}", AddressError)
    other = secured_kafka.folder / "server.properties"
    assert "PEM" in refused(f"{safe}?ca={other}", AddressError)
    # Without a certificate of the client's own, and with one of another authority.
    assert "cert=" in refused(f"{safe}?ca={tls.ca}", AddressError)
    strange = f"ca={tls.ca}&cert={stranger.cert}&key={stranger.key}"
    assert "cert=" in refused(f"{safe}?{strange}", AddressError)


@pytest.mark.parametrize("mechanism", SCRAM)
def test_scram_over_tls(
    secured_kafka: KafkaServer, mechanism: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert secured_kafka.tls is not None
    name = secured_kafka.create_topic(mechanism)
    where = f"kafka://{secured_kafka.scram_bootstrap}/{name}?ca={secured_kafka.tls.ca}"
    login = f"{where}&username={secured_kafka.username}"
    monkeypatch.setenv("KAFKA_PASSWORD", secured_kafka.password)
    assert check_topic(KafkaAddress.parse(f"{login}&mechanism={mechanism}")) == {0: (0, 0)}
    assert "wants a login; write security=SASL_SSL&username=" in refused(where, AddressError)
    line = refused(login, AddressError)  # as PLAIN
    assert "does not take mechanism=PLAIN (it takes SCRAM-SHA-" in line
    monkeypatch.setenv("KAFKA_PASSWORD", "wr0ng")
    line = refused(f"{login}&mechanism={mechanism}", AddressError)
    assert f"refuses user '{secured_kafka.username}'; check username= and KAFKA_PASSWORD" in line
    assert "wr0ng" not in line


def test_a_broker_that_names_itself_by_what_only_it_can_reach(
    kafka: KafkaServer, topic: MakeTopic
) -> None:
    far = f"kafka://{kafka.far_bootstrap}/{topic()}"
    line = refused(far, ServiceUnavailableError, timeout_s=4)
    assert f"the brokers it names ({NOWHERE}) do not" in line
    assert "advertised.listeners" in line


def test_kafka_pythons_own_lines_stay_out(
    kafka: KafkaServer, caplog: pytest.LogCaptureFixture
) -> None:
    level = logging.getLogger("kafka").level
    with caplog.at_level(logging.DEBUG):
        refused(f"kafka://{kafka.bootstrap}/nowhere", AddressError)
    ours = [record for record in caplog.records if record.name.split(".")[0] == "kafka"]
    assert ours == []
    assert logging.getLogger("kafka").level == level
