"""`kafka://` addresses: where a topic is, how to be let in, and which part of it to read."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from group_scores.stores.address import did_you_mean, parse_uri
from group_scores.stores.errors import AddressError
from group_scores.stores.secrets import how_to_set, secret

DEFAULT_PORT = 9092
DEFAULT_GROUP = "group-scores"
PASSWORD_VARIABLE = "KAFKA_PASSWORD"
SECURITIES = ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")
MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")
STARTS = ("committed", "earliest", "latest")
UNTILS = ("latest", "forever")

_SOURCE_OPTIONS = ("group", "start", "until")
_ACCESS_OPTIONS = ("security", "mechanism", "username", "ca", "cert", "key")
# The broker's own rule for names (Kafka, `Topic.validate`).
_TOPIC_NAME = re.compile(r"[a-zA-Z0-9._-]{1,249}")
# A number of seconds taken for milliseconds falls into January 1970; no assessment was before 1973.
_FIRST_PLAUSIBLE_MS = 100_000_000_000
_LAST_MS = 2**63 - 1

Role = Literal["source", "sink"]


@dataclass(frozen=True)
class KafkaAddress:
    """One topic of one cluster, without secrets: it may be pickled, logged and compared.

    `bootstrap` holds `HOST:PORT` texts. `start` is one of `STARTS`, or an epoch time in ms;
    `group`, `start` and `until` mean nothing for a sink. `ca`, `cert` and `key` are paths of PEM
    files, looked at where the connection is made.
    """

    bootstrap: tuple[str, ...]
    topic: str
    role: Role = "source"
    group: str = DEFAULT_GROUP
    start: str | int = "committed"
    until: str = "latest"
    security: str = "PLAINTEXT"
    mechanism: str | None = None
    username: str | None = None
    ca: str | None = None
    cert: str | None = None
    key: str | None = None

    @classmethod
    def parse(cls, text: str, *, role: Role = "source") -> KafkaAddress:
        """Read `kafka://HOST:PORT[,HOST:PORT]/TOPIC[?option=value&…]`.

        Raises AddressError, one line that names what is wrong and what would be right.
        """
        if not text.startswith("kafka://"):
            raise AddressError(f"{text!r} is not a Kafka address; write kafka://HOST:PORT/TOPIC")
        uri = parse_uri(
            text,
            default_port=DEFAULT_PORT,
            options=_SOURCE_OPTIONS + _ACCESS_OPTIONS,
            needs_path="topic",
        )
        if role == "sink":
            for name in _SOURCE_OPTIONS:
                if name in uri.options:
                    raise AddressError(
                        f"option {name!r} in {text!r} says how a topic is read, and this one is "
                        "written; drop it"
                    )
        return cls(
            bootstrap=tuple(
                f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in uri.hosts
            ),
            topic=_topic(uri.path, text),
            role=role,
            group=uri.options.get("group", DEFAULT_GROUP),
            start=_start(uri.options.get("start", "committed")),
            until=_one_of("until", uri.options.get("until", "latest"), UNTILS),
            **_access(uri.options),
        )

    def __str__(self) -> str:
        return f"kafka://{self.servers}/{self.topic}"

    @property
    def servers(self) -> str:
        """The bootstrap servers as one text, for messages."""
        return ",".join(self.bootstrap)

    @property
    def authenticates(self) -> bool:
        """Whether the listener asks for a user and a password."""
        return self.security.startswith("SASL")

    @property
    def encrypts(self) -> bool:
        """Whether the listener speaks TLS."""
        return self.security.endswith("SSL")

    def client_config(self) -> dict[str, Any]:
        """Return kafka-python's connection settings, the password (`stores.secrets`) among them.

        To be called where the connection is made, and not kept. Raises AddressError for a missing
        password and for a file that cannot be read.
        """
        config: dict[str, Any] = {
            "bootstrap_servers": list(self.bootstrap),
            "client_id": DEFAULT_GROUP,
            "security_protocol": self.security,
        }
        if self.encrypts:
            for name in ("ca", "cert", "key"):
                if path := getattr(self, name):
                    config[f"ssl_{name}file"] = _readable(name, path)
        if self.authenticates:
            password = secret(PASSWORD_VARIABLE)
            if password is None:
                raise AddressError(
                    f"no password for user {self.username!r} of {self}; "
                    f"{how_to_set(PASSWORD_VARIABLE)}"
                )
            config["sasl_mechanism"] = self.mechanism
            config["sasl_plain_username"] = self.username
            config["sasl_plain_password"] = password
        return config


def host_port(server: str) -> tuple[str, int]:
    """Take `HOST:PORT` or `[HOST]:PORT` apart."""
    host, _, port = server.rpartition(":")
    return host.strip("[]"), int(port)


def _topic(name: str, text: str) -> str:
    if name in (".", "..") or not _TOPIC_NAME.fullmatch(name):
        raise AddressError(
            f"{name!r} in {text!r} cannot be a Kafka topic: a name has 1 to 249 letters, digits, "
            "'.', '_' and '-'"
        )
    return name


def _one_of(option: str, value: str, known: Iterable[str], also: str = "") -> str:
    names = list(known)
    for name in names:
        if value.lower() == name.lower():
            return name
    near = did_you_mean(value.lower(), [name.lower() for name in names])
    raise AddressError(f"{option}={value!r} is none of {', '.join(names)}{also}{near}")


def _start(value: str) -> str | int:
    if not (value.isascii() and value.isdigit()):
        return _one_of("start", value, STARTS, " or a time in epoch ms")
    time_ms = int(value)
    if 0 < time_ms < _FIRST_PLAUSIBLE_MS:
        raise AddressError(
            f"start={value} is in milliseconds since 1970 and would be before 1973; "
            f"a time in seconds becomes start={value}000"
        )
    if time_ms > _LAST_MS:
        raise AddressError(f"start={value} is too large for a time in milliseconds since 1970")
    return time_ms


def _access(options: Mapping[str, str]) -> dict[str, Any]:
    """The settings of the connection, filled in and checked against each other."""
    named = {name: options.get(name) for name in _ACCESS_OPTIONS if name != "security"}
    sasl = [name for name in ("username", "mechanism") if named[name]]
    tls = [name for name in ("ca", "cert", "key") if named[name]]
    if text := options.get("security"):
        security = _one_of("security", text, SECURITIES)
    elif sasl:
        security = "SASL_SSL"  # a password leaves this machine unencrypted only when asked to
    else:
        security = "SSL" if tls else "PLAINTEXT"
    if not security.endswith("SSL") and tls:
        better = "SASL_SSL" if security.startswith("SASL") else "SSL"
        raise AddressError(f"{tls[0]}= needs TLS, security={security} has none; write {better}")
    if named["key"] and not named["cert"]:
        raise AddressError("key= without cert=: give the client certificate that it belongs to")
    if not security.startswith("SASL"):
        if sasl:
            raise AddressError(
                f"{sasl[0]}= is of no use with security={security}; "
                f"write security=SASL_{'SSL' if security == 'SSL' else 'PLAINTEXT'} or drop it"
            )
        return {**named, "security": security}
    if not named["username"]:
        raise AddressError(
            f"security={security} needs a user: add username=, and {how_to_set(PASSWORD_VARIABLE)}"
        )
    mechanism = _one_of("mechanism", named["mechanism"] or "PLAIN", MECHANISMS)
    return {**named, "security": security, "mechanism": mechanism}


def _readable(name: str, path: str) -> str:
    try:
        with open(path, "rb"):
            return path
    except OSError as error:
        raise AddressError(
            f"{name}={path} cannot be read: {error.strerror}; give the path of a PEM file"
        ) from None
