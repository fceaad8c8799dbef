"""Kafka addresses: what is taken, what is refused and how, and that no secret stays in them."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from group_scores.stores.errors import AddressError
from group_scores.transforms.kafka.address import KafkaAddress, host_port

PLAIN = "kafka://broker:9092/events"


def test_defaults() -> None:
    address = KafkaAddress.parse("kafka://broker/dev.telemetry.assess")
    assert address == KafkaAddress(bootstrap=("broker:9092",), topic="dev.telemetry.assess")
    assert (address.group, address.start, address.until) == ("group-scores", "committed", "latest")
    assert address.client_config() == {
        "bootstrap_servers": ["broker:9092"],
        "client_id": "group-scores",
        "security_protocol": "PLAINTEXT",
    }


def test_all_options() -> None:
    address = KafkaAddress.parse(
        "kafka://a:1,b,[::1]:3/t?group=g%201&start=1700000000000&until=forever"
        "&security=sasl_ssl&mechanism=scram-sha-512&username=ann&ca=c.pem&cert=d.pem&key=k.pem"
    )
    assert address.bootstrap == ("a:1", "b:9092", "[::1]:3")
    assert (address.group, address.start, address.until) == ("g 1", 1_700_000_000_000, "forever")
    assert (address.security, address.mechanism) == ("SASL_SSL", "SCRAM-SHA-512")
    assert (address.ca, address.cert, address.key) == ("c.pem", "d.pem", "k.pem")
    assert str(address) == "kafka://a:1,b:9092,[::1]:3/t"


@pytest.mark.parametrize(
    ("query", "security"),
    [
        ("", "PLAINTEXT"),
        ("?ca=c.pem", "SSL"),
        ("?username=ann", "SASL_SSL"),
        ("?username=ann&security=Sasl_Plaintext", "SASL_PLAINTEXT"),
        ("?security=ssl", "SSL"),
    ],
)
def test_security_is_inferred_and_never_sends_a_password_in_the_clear(
    query: str, security: str
) -> None:
    assert KafkaAddress.parse(PLAIN + query).security == security


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("kafka:/broker/t", "not a Kafka address"),
        ("http://broker/t", "not a Kafka address"),
        ("kafka://broker:9092", "names no topic"),
        ("kafka://broker:9092/a/b", "not one topic"),
        ("kafka://broker:0/t", "not a port"),
        ("kafka://ann:secret@broker/t", "credentials"),
        ("kafka://broker/a%20topic", "cannot be a Kafka topic"),
        ("kafka://broker/..", "cannot be a Kafka topic"),
        ("kafka://broker/" + "t" * 250, "1 to 249"),
        (PLAIN + "?grup=x", "did you mean 'group'"),
        (PLAIN + "?password=x", "environment"),
        (PLAIN + "?start=earlist", "did you mean 'earliest'"),
        (PLAIN + "?start=-5", "epoch ms"),
        (PLAIN + "?start=1700000000", "start=1700000000000"),
        (PLAIN + "?start=99999999999999999999", "too large"),
        (PLAIN + "?until=tomorrow", "is none of latest, forever"),
        (PLAIN + "?security=SASL_SLL&username=ann", "did you mean 'sasl_ssl'"),
        (PLAIN + "?username=ann&mechanism=scram-256", "did you mean 'scram-sha-256'"),
        (PLAIN + "?security=SASL_SSL", "username="),
        (PLAIN + "?mechanism=PLAIN", "username="),
        (PLAIN + "?security=PLAINTEXT&username=ann", "SASL_PLAINTEXT"),
        (PLAIN + "?security=SSL&username=ann", "SASL_SSL"),
        (PLAIN + "?security=PLAINTEXT&ca=c.pem", "write SSL"),
        (PLAIN + "?security=SASL_PLAINTEXT&username=ann&ca=c.pem", "write SASL_SSL"),
        (PLAIN + "?key=k.pem", "cert="),
    ],
)
def test_refusals_name_the_mend_in_one_line(text: str, says: str) -> None:
    with pytest.raises(AddressError) as refused:
        KafkaAddress.parse(text)
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("option", ["group=g", "start=earliest", "until=latest"])
def test_a_sink_has_no_offsets(option: str) -> None:
    with pytest.raises(AddressError, match=option.partition("=")[0]):
        KafkaAddress.parse(f"{PLAIN}?{option}", role="sink")
    assert KafkaAddress.parse(PLAIN, role="sink").role == "sink"


def test_the_password_is_taken_at_connect_time_and_not_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    address = KafkaAddress.parse(PLAIN + "?security=SASL_PLAINTEXT&username=ann")
    monkeypatch.delenv("KAFKA_PASSWORD", raising=False)
    with pytest.raises(AddressError, match="KAFKA_PASSWORD"):
        address.client_config()
    monkeypatch.setenv("KAFKA_PASSWORD", "hush-hush")
    config = address.client_config()
    assert (config["sasl_mechanism"], config["sasl_plain_username"]) == ("PLAIN", "ann")
    assert config["sasl_plain_password"] == "hush-hush"
    assert "hush-hush" not in repr(address)
    assert b"hush-hush" not in pickle.dumps(address)
    assert pickle.loads(pickle.dumps(address)) == address


def test_files_are_looked_at_where_the_connection_is_made(tmp_path: Path) -> None:
    ca = tmp_path / "ca.pem"
    address = KafkaAddress.parse(f"{PLAIN}?ca={ca}")
    with pytest.raises(AddressError, match=r"ca=.*ca\.pem cannot be read: No such file"):
        address.client_config()
    ca.write_text("")
    assert address.client_config()["ssl_cafile"] == str(ca)


@pytest.mark.parametrize(
    ("server", "parts"), [("h:1", ("h", 1)), ("[::1]:9092", ("::1", 9092)), ("a.b:2", ("a.b", 2))]
)
def test_host_and_port(server: str, parts: tuple[str, int]) -> None:
    assert host_port(server) == parts
