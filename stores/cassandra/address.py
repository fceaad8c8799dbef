"""`cassandra://HOST[,HOST]:PORT/KEYSPACE[?option=value]`, taken apart and checked."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path

from group_scores.stores.address import Uri, did_you_mean, parse_uri
from group_scores.stores.errors import AddressError

DEFAULT_PORT = 9042
CONSISTENCIES = (
    "ONE",
    "TWO",
    "THREE",
    "QUORUM",
    "ALL",
    "LOCAL_QUORUM",
    "EACH_QUORUM",
    "LOCAL_ONE",
)
_OPTIONS = ("dc", "consistency", "username", "ca", "cert", "key")
_SOURCE_OPTIONS = ("course", "batch", "rows_s", "taken")
_KEYSPACE = re.compile(r"\w{1,48}", re.ASCII)


@dataclass(frozen=True)
class CassandraAddress:
    """Where a cluster is and how to speak with it; holds no secret.

    The password (`CASSANDRA_PASSWORD`, see `stores.secrets`) is read at each connection.
    `ca`, `cert` and `key` are PEM files; with a `ca` the connection is TLS and the nodes'
    certificates are checked against it and against their host names.
    """

    hosts: tuple[str, ...]
    port: int
    keyspace: str
    dc: str | None = None
    consistency: str = "LOCAL_QUORUM"
    username: str | None = None
    ca: str | None = None
    cert: str | None = None
    key: str | None = None

    @classmethod
    def parse(cls, text: str) -> CassandraAddress:
        """Parse the address; raises AddressError, naming the part that is wrong and the remedy."""
        return cls._of(
            parse_uri(text, default_port=DEFAULT_PORT, options=_OPTIONS, needs_path="keyspace")
        )

    @classmethod
    def _of(cls, uri: Uri) -> CassandraAddress:
        if not _KEYSPACE.fullmatch(uri.path):
            raise AddressError(
                f"{uri.path!r} is not a keyspace name: letters, digits and '_', at most 48"
            )
        options = {name: value for name, value in uri.options.items() if name in _OPTIONS}
        consistency = options.get("consistency", "LOCAL_QUORUM").upper()
        if consistency not in CONSISTENCIES:
            raise AddressError(
                f"unknown consistency {options['consistency']!r}"
                f"{did_you_mean(consistency, CONSISTENCIES)} "
                f"(one of {', '.join(CONSISTENCIES)})"
            )
        for name in ("ca", "cert", "key"):
            _check_file(name, options.get(name))
        if ("cert" in options) != ("key" in options):
            raise AddressError("a client certificate takes both cert= and key=; give the other too")
        if "cert" in options and "ca" not in options:
            raise AddressError("cert= and key= need ca= too: the authority of the nodes")
        options["consistency"] = consistency
        port = uri.hosts[-1][1]
        named = {port for _, port in uri.hosts} - {DEFAULT_PORT, port}
        if named:
            raise AddressError(
                f"{uri.text!r} has more than one port; every node of a cluster has the same"
            )
        return cls(tuple(host for host, _ in uri.hosts), port, uri.path, **options)

    def __str__(self) -> str:
        hosts = ",".join(f"[{host}]" if ":" in host else host for host in self.hosts)
        return f"cassandra://{hosts}:{self.port}/{self.keyspace}"


@dataclass(frozen=True)
class CassandraSourceAddress:
    """A cluster to read the attempts from: which of them, how fast, and as of when.

    `rows_s` is how many rows a second a worker process reads at most; None does not hold it back.
    `taken_ms` is the time, epoch ms, as of which an old or restored cluster has them; None is now.
    """

    cluster: CassandraAddress
    course: str | None = None
    batch: str | None = None
    rows_s: float | None = None
    taken_ms: int | None = None

    @classmethod
    def parse(cls, text: str) -> CassandraSourceAddress:
        """Parse the address; raises AddressError, naming the part that is wrong and the remedy."""
        uri = parse_uri(
            text,
            default_port=DEFAULT_PORT,
            options=(*_OPTIONS, *_SOURCE_OPTIONS),
            needs_path="keyspace",
        )
        rows_s, taken = uri.options.get("rows_s"), uri.options.get("taken")
        return cls(
            CassandraAddress._of(uri),
            uri.options.get("course"),
            uri.options.get("batch"),
            None if rows_s is None else _rate(rows_s),
            None if taken is None else _time_ms(taken),
        )

    def __str__(self) -> str:
        return str(self.cluster)


def _rate(text: str) -> float:
    try:
        rate = float(text)
    except ValueError:
        rate = math.nan
    if not (math.isfinite(rate) and rate > 0):
        raise AddressError(f"rows_s={text} is not a number of rows a second; give one above 0")
    return rate


def _time_ms(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 0 < int(text) < 2**63 // 1000):
        raise AddressError(f"taken={text} is not a time in epoch ms; give a whole number above 0")
    return int(text)


def _check_file(name: str, path: str | None) -> None:
    if path is None:
        return
    try:
        Path(path).read_bytes()
    except OSError as error:
        raise AddressError(f"{name}={path} cannot be read: {error.strerror}") from None
