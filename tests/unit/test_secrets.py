"""Passwords from the environment or a file: one line where they cannot be had, and never shown."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from group_scores.stores import AddressError
from group_scores.stores.cassandra import CassandraAddress, session
from group_scores.stores.secrets import secret
from group_scores.transforms.check_content import ContentIndex
from group_scores.transforms.kafka.address import KafkaAddress
from tests.command_line import refused

PASSWORD = "s3cret-w0rd"
VARIABLES = ("KAFKA_PASSWORD", "CASSANDRA_PASSWORD", "REDIS_PASSWORD")
KAFKA = KafkaAddress.parse("kafka://h/t?security=SASL_PLAINTEXT&username=ann")


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(f"{name}_FILE", raising=False)


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that all three variables name."""
    path = tmp_path / "password"
    path.write_text(PASSWORD + "\n")
    for name in VARIABLES:
        monkeypatch.setenv(f"{name}_FILE", str(path))
    return path


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (b"word", "word"),
        (b"word\n", "word"),
        (b"word\r\n", "word"),
        (b"word\n\n", "word\n"),
        (b" two words ", " two words "),
        ("gehëim\n".encode(), "gehëim"),
    ],
)
def test_a_file_holds_the_secret_without_its_last_line_end(
    file: Path, text: bytes, value: str
) -> None:
    file.write_bytes(text)
    assert secret("KAFKA_PASSWORD") == value


def test_an_empty_variable_is_not_set(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAFKA_PASSWORD", "")
    assert secret("KAFKA_PASSWORD") == PASSWORD
    monkeypatch.setenv("KAFKA_PASSWORD_FILE", "")
    assert secret("KAFKA_PASSWORD") is None


def test_both_are_refused(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAFKA_PASSWORD", "other-w0rd")
    with pytest.raises(AddressError, match="both KAFKA_PASSWORD and KAFKA_PASSWORD_FILE") as error:
        secret("KAFKA_PASSWORD")
    assert "w0rd" not in str(error.value)


@pytest.mark.parametrize("break_it", ["missing", "folder", "empty", "large", "binary", "pipe"])
def test_a_file_of_no_use_is_named_by_its_variable(file: Path, break_it: str) -> None:
    file.unlink()
    match break_it:
        case "folder":
            file.mkdir()
        case "empty":
            file.write_text("\n")
        case "large":
            file.write_text(PASSWORD * 10_000)
        case "binary":
            file.write_bytes(PASSWORD.encode() + b"\xff")
        case "pipe":
            os.mkfifo(file)
    with pytest.raises(AddressError, match="the file that KAFKA_PASSWORD_FILE names") as error:
        KAFKA.client_config()
    assert "\n" not in str(error.value)
    assert PASSWORD not in str(error.value)
    assert error.value.__suppress_context__ or error.value.__context__ is None


def test_a_secret_in_the_place_of_the_path_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAFKA_PASSWORD_FILE", PASSWORD)
    with pytest.raises(AddressError, match="No such file") as error:
        secret("KAFKA_PASSWORD")
    assert PASSWORD not in str(error.value)


class TestRotation:
    """What is in the file when a connection is made is what is sent."""

    def test_kafka(self, file: Path) -> None:
        assert KAFKA.client_config()["sasl_plain_password"] == PASSWORD
        file.write_text("next")
        assert KAFKA.client_config()["sasl_plain_password"] == "next"

    def test_cassandra(self, file: Path) -> None:
        provider = session._auth_provider(CassandraAddress.parse("cassandra://h/ks?username=ann"))
        assert provider is not None
        assert provider.new_authenticator("h").password == PASSWORD
        file.write_text("next")
        assert provider.new_authenticator("h").password == "next"
        file.unlink()  # between the old one and the new
        assert provider.new_authenticator("h").password == "next"
        assert "next" not in repr(provider)

    def test_redis(self, file: Path) -> None:
        index = ContentIndex("redis://127.0.0.1:1/0")
        provider = index._redis.connection_pool.connection_kwargs["credential_provider"]
        assert provider.get_credentials() == (PASSWORD,)
        file.write_text("next")
        assert provider.get_credentials() == ("next",)


SOURCE = ("--source", "events.jsonl")
STORE = ("--store", "sqlite:scores.db")


@pytest.mark.parametrize(
    ("variable", "words"),
    [
        ("KAFKA", ("--source", "kafka://127.0.0.1:1/t?username=ann", *STORE)),
        ("KAFKA", (*SOURCE, *STORE, "--dead-letter", "kafka://127.0.0.1:1/t?username=ann")),
        ("CASSANDRA", (*SOURCE, "--store", "cassandra://127.0.0.1:1/ks?username=ann")),
        ("REDIS", (*SOURCE, *STORE, "--content-index", "redis://127.0.0.1:1/0")),
    ],
)
def test_a_run_ends_in_one_line_with_code_2(
    variable: str,
    words: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "events.jsonl").write_text("{}\n")
    monkeypatch.setenv(f"{variable}_PASSWORD_FILE", str(tmp_path / "no-such-file"))
    line = refused("run", *words)
    assert f"{variable}_PASSWORD_FILE names cannot be read: No such file" in line
    monkeypatch.setenv(f"{variable}_PASSWORD", PASSWORD)
    line = refused("run", *words)
    assert f"both {variable}_PASSWORD and {variable}_PASSWORD_FILE are set" in line
    assert PASSWORD not in line


@pytest.mark.parametrize(
    "address",
    [
        "{scheme}://ann:{word}@h/t",
        "{scheme}://ann:{word}/x@h/t",
        "{scheme}://ann:{word}?x@h/t",
        "{scheme}://ann:{word}#x@h/t",
        "{scheme}://ann:[{word}@h/t",
        "{scheme}://h/t?password={word}",
        "{scheme}://h/?username=ann&pwd={word}",
        "{scheme}://h:0/t?Password={word}",
        "{scheme}://h/t?x_pass={word}#x",
    ],
)
@pytest.mark.parametrize("scheme", ["kafka", "cassandra", "redis"])
def test_a_secret_in_an_address_is_refused_and_not_repeated(
    scheme: str, address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "events.jsonl").write_text("{}\n")
    text = address.format(scheme=scheme, word=PASSWORD)
    words = {
        "kafka": ("--source", text, *STORE),
        "cassandra": (*SOURCE, "--store", text),
        "redis": (*SOURCE, *STORE, "--content-index", text),
    }
    line = refused("run", *words[scheme])
    assert PASSWORD not in line
