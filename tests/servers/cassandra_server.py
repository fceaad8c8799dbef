"""Cassandra nodes, and the tables that the pipeline finds in them."""

from __future__ import annotations

import contextlib
import json
import re
import ssl
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self

from cassandra import DriverException
from cassandra.auth import PlainTextAuthProvider
from cassandra.cluster import (
    EXEC_PROFILE_DEFAULT,
    Cluster,
    ExecutionProfile,
    NoHostAvailable,
    Session,
)
from cassandra.policies import (
    ConstantReconnectionPolicy,
    RoundRobinPolicy,
    WhiteListRoundRobinPolicy,
)
from cassandra.query import tuple_factory

from group_scores.stores.sstable import artifacts as sstable_artifacts
from tests.servers import artifacts
from tests.servers.process import LOOPBACK, Server, ServerError, free_port, port_open
from tests.servers.tls import TlsFiles

TABLES = Path(__file__).with_name("tables.cql")
LOGBACK = """<configuration>
  <appender name="OUT" class="ch.qos.logback.core.ConsoleAppender">
    <encoder><pattern>%-5level %d{ISO8601} [%thread] %logger{20} - %msg%n</pattern></encoder>
  </appender>
  <root level="INFO"><appender-ref ref="OUT"/></root>
</configuration>
"""


class CassandraServer(Server):
    """One Cassandra node; by default a cluster of its own, open to all and in the clear.

    A second node of the same cluster takes another loopback address as `listen_address` and the
    first one's `seed` in `seeds`; both are in data centre `datacenter1`, rack `rack1`.
    `settings` are put over the node's cassandra.yaml. `kill` may lose the writes of the last
    second, as the commit log is synced once in one; `stop` loses none.
    """

    name = "cassandra"
    start_timeout_s = 120.0

    def __init__(
        self,
        folder: Path,
        *,
        password_auth: bool = False,
        tls: TlsFiles | None = None,
        require_client_auth: bool = False,
        heap: str = "1g",
        listen_address: str = LOOPBACK,
        port: int | None = None,
        storage_port: int | None = None,
        seeds: Sequence[str] = (),
        num_tokens: int = 4,
        settings: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__(folder)
        self.host = listen_address
        self.port = port or free_port(listen_address)
        self.storage_port = storage_port or free_port(listen_address)
        self.jmx_port = free_port()
        self.seed = f"{listen_address}:{self.storage_port}"
        self.tls = tls
        self.require_client_auth = require_client_auth
        self.username = "cassandra" if password_auth else None
        self.password = "cassandra" if password_auth else None
        self.heap = heap
        self.seeds = tuple(seeds) or (self.seed,)
        self.num_tokens = num_tokens
        self.settings = dict(settings or {})
        self._sessions: list[Session] = []

    @property
    def data(self) -> Path:
        """The folder of the tables: `KEYSPACE/TABLE-ID/…-Data.db`."""
        return self.folder / "data"

    def cluster(self, **options: Any) -> Cluster:
        """Return the driver's `Cluster` for this node; `options` are put over our own.

        With `alone=True` every statement goes to this node, and not in turn to those it knows.
        """
        alone = options.pop("alone", False)
        profile = ExecutionProfile(
            load_balancing_policy=(
                WhiteListRoundRobinPolicy([self.host]) if alone else RoundRobinPolicy()
            ),
            request_timeout=30,
            row_factory=options.pop("row_factory", tuple_factory),
        )
        defaults: dict[str, Any] = {
            "port": self.port,
            "protocol_version": 4,
            "execution_profiles": {EXEC_PROFILE_DEFAULT: profile},
            "reconnection_policy": ConstantReconnectionPolicy(0.5, max_attempts=None),
            "connect_timeout": 10,
        }
        if self.username:
            defaults["auth_provider"] = PlainTextAuthProvider(self.username, self.password)
        if self.tls:
            context = ssl.create_default_context(cafile=str(self.tls.ca))
            context.load_cert_chain(self.tls.cert, self.tls.key)
            defaults["ssl_context"] = context
            defaults["ssl_options"] = {"server_hostname": self.host}
        return Cluster([self.host], **(defaults | options))

    @contextlib.contextmanager
    def session(self, **options: Any) -> Iterator[Session]:
        """Connect for the length of a `with` block.

        `start` and `resume` return only when such a session has found its way back to the server.
        """
        cluster = self.cluster(**options)
        try:
            session = cluster.connect()
            self._sessions.append(session)
            try:
                yield session
            finally:
                self._sessions.remove(session)
        finally:
            cluster.shutdown()

    def start(self) -> Self:
        super().start()
        self._wait_for_sessions()
        return self

    def resume(self) -> None:
        super().resume()
        self._wait_for_sessions()

    def nodetool(self, *arguments: str) -> str:
        """Run a nodetool command on this node and return what it printed."""
        address = ["-h", LOOPBACK, "-p", str(self.jmx_port)]
        return self.tool("org.apache.cassandra.tools.NodeTool", *address, *arguments)

    def tool(self, main_class: str, *arguments: str) -> str:
        """Run one of the programs that come with Cassandra and return what it printed.

        Raises ServerError with its words when it fails.
        """
        command = [*self._java("256m"), main_class, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, cwd=self.folder)
        if done.returncode:
            said = (done.stdout + done.stderr).strip()
            raise ServerError(f"{main_class.rpartition('.')[2]} {' '.join(arguments)}: {said}")
        return done.stdout

    def prepare(self) -> None:
        (self.folder / "tmp").mkdir(exist_ok=True)
        (self.folder / "logback.xml").write_text(LOGBACK)
        # JSON is YAML
        (self.folder / "cassandra.yaml").write_text(json.dumps(self._yaml(), indent=2))

    def command(self) -> Sequence[str]:
        return [
            *self._java(self.heap),
            "-XX:+UseSerialGC",
            f"-Dcassandra.config={(self.folder / 'cassandra.yaml').as_uri()}",
            f"-Dcassandra.storagedir={self.folder}",
            "-Dcassandra-foreground=yes",
            "-Dcassandra.superuser_setup_delay_ms=0",
            "-Dcassandra.skip_wait_for_gossip_to_settle=0",
            "-Dcassandra.ring_delay_ms=1000",
            f"-Dcassandra.jmx.local.port={self.jmx_port}",
            "org.apache.cassandra.service.CassandraDaemon",
        ]

    def ready(self) -> bool:
        if not port_open(self.host, self.port):
            return False
        with contextlib.suppress(NoHostAvailable, DriverException, OSError), self.session():
            return True
        return False

    def _wait_for_sessions(self) -> None:
        deadline = time.monotonic() + self.start_timeout_s
        for session in self._sessions:
            while not self._answers(session):
                if time.monotonic() > deadline:
                    raise ServerError("a session of the driver did not come back to cassandra")
                time.sleep(0.2)

    def _answers(self, session: Session) -> bool:
        with contextlib.suppress(NoHostAvailable, DriverException):
            session.execute("SELECT key FROM system.local", timeout=5)
            return True
        return False

    def _java(self, heap: str) -> list[str]:
        return [
            artifacts.java(),
            *sstable_artifacts.MODULES,
            f"-Xmx{heap}",
            "-XX:+PerfDisableSharedMem",
            "-Djdk.attach.allowAttachSelf=true",
            "-Djava.security.manager=allow",
            f"-Djava.io.tmpdir={self.folder / 'tmp'}",
            f"-Djna.tmpdir={self.folder / 'tmp'}",
            f"-Dlogback.configurationFile={self.folder / 'logback.xml'}",
            "-cp",
            f"{artifacts.jars(self.name)}/*",
        ]

    def _yaml(self) -> dict[str, object]:
        yaml: dict[str, object] = {
            "cluster_name": "group-scores tests",
            "num_tokens": self.num_tokens,
            "partitioner": "org.apache.cassandra.dht.Murmur3Partitioner",
            "endpoint_snitch": "SimpleSnitch",
            "listen_address": self.host,
            "rpc_address": self.host,
            "native_transport_port": self.port,
            "storage_port": self.storage_port,
            "seed_provider": [
                {
                    "class_name": "org.apache.cassandra.locator.SimpleSeedProvider",
                    "parameters": [{"seeds": ",".join(self.seeds)}],
                }
            ],
            "data_file_directories": [str(self.data)],
            "commitlog_directory": str(self.folder / "commitlog"),
            "saved_caches_directory": str(self.folder / "saved_caches"),
            "hints_directory": str(self.folder / "hints"),
            "cdc_raw_directory": str(self.folder / "cdc_raw"),
            "commitlog_sync": "periodic",
            "commitlog_sync_period": "1s",
            "commitlog_segment_size": "16MiB",
            "auto_snapshot": False,
            # Two cores that the tests share are slow at times, and no test is about these.
            "read_request_timeout": "20s",
            "range_request_timeout": "20s",
            "write_request_timeout": "20s",
            "request_timeout": "20s",
        }
        if self.username:
            yaml["authenticator"] = "PasswordAuthenticator"
            yaml["authorizer"] = "CassandraAuthorizer"
        if self.tls:
            yaml["client_encryption_options"] = {
                "enabled": True,
                "optional": False,
                "require_client_auth": self.require_client_auth,
                "keystore": str(self.tls.keystore),
                "keystore_password": self.tls.password,
                "truststore": str(self.tls.truststore),
                "truststore_password": self.tls.password,
                "store_type": "PKCS12",
            }
        return yaml | self.settings


def create_tables(
    session: Session,
    keyspace: str,
    *,
    attempts_key: Literal["user", "course"] = "user",
    with_aggregates: bool = True,
    with_agg_details: bool = True,
) -> None:
    """Create `keyspace` with the attempts and the aggregates table of one deployment.

    `attempts_key` is what the primary key of the attempts begins with; the older deployments have
    it by course, and the oldest know neither `aggregates` nor `agg_details`.
    """
    cql = _courses(keyspace, attempts_key)
    if not with_aggregates:
        cql = _replace(cql, r"\n *aggregates .*", "")
    if not with_agg_details:
        cql = _replace(cql, r"\n *agg_details .*", "")
    _run(session, cql, keyspace)


def create_attempts(
    session: Session, keyspace: str, *, attempts_key: Literal["user", "course"], replication: int
) -> None:
    """Create `keyspace`, replicated on so many nodes, with the attempts table alone."""
    cql = _replace(_courses(keyspace, attempts_key), r"factor': 1", f"factor': {replication}")
    _run(session, cql.partition(f"{keyspace}.user_activity_agg")[0], keyspace)


def create_group_tables(session: Session, keyspace: str) -> None:
    """Create `keyspace` with the table of the groups' members."""
    cql = _replace(TABLES.read_text(), r"\bsunbird_groups\b", keyspace)
    _run(session, cql, keyspace)


def _courses(keyspace: str, attempts_key: Literal["user", "course"]) -> str:
    cql = _replace(TABLES.read_text(), r"\bsunbird_courses\b", keyspace)
    if attempts_key == "course":
        by_course = "PRIMARY KEY (course_id, batch_id, user_id, content_id, attempt_id)"
        cql = _replace(cql, r"PRIMARY KEY \(\(user_id, course_id\).*\)", by_course)
    return cql


def _replace(text: str, pattern: str, by: str) -> str:
    changed, count = re.subn(pattern, by, text)
    if not count:
        raise ServerError(f"{TABLES.name} has no {pattern!r} any more")
    return changed


def _run(session: Session, cql: str, keyspace: str) -> None:
    """Run the statements of `cql` that are about `keyspace`."""
    text = re.sub(r"--.*", "", cql)
    for statement in text.split(";"):
        if re.search(rf"\b{keyspace}\b", statement):
            session.execute(statement)
