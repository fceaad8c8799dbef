"""A Kafka broker that is its own controller."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from kafka import TopicPartition
from kafka.admin import KafkaAdminClient
from kafka.errors import KafkaError

from tests.servers import artifacts
from tests.servers.process import LOOPBACK, Server, ServerError, free_port, port_open
from tests.servers.tls import TlsFiles

SCRAM = ("SCRAM-SHA-512", "SCRAM-SHA-256")
CLUSTER_ID = "group-scores-tests-00A"  # 16 bytes in base64, as Kafka wants it
NOWHERE = f"{LOOPBACK}:1"
LOG4J = """log4j.rootLogger=WARN, OUT
log4j.logger.kafka.server.KafkaRaftServer=INFO
log4j.appender.OUT=org.apache.log4j.ConsoleAppender
log4j.appender.OUT.layout=org.apache.log4j.PatternLayout
log4j.appender.OUT.layout.ConversionPattern=%-5p %d{ISO8601} %c{1} - %m%n
"""


class KafkaServer(Server):
    """One broker: `bootstrap` is open to all, the other listeners want something.

    `sasl_bootstrap` wants SASL/PLAIN over plain text, by `username` and `password`. With `tls`
    there are two more, with the certificate of it: `scram_bootstrap` wants the same user by
    SCRAM-SHA-512 or SCRAM-SHA-256, `certified_bootstrap` a certificate of the client's own. At
    `far_bootstrap` the broker names itself by what nobody can reach.

    Topics are never made by asking for them. `settings` are put over the broker's
    server.properties.
    """

    name = "kafka"
    start_timeout_s = 60.0

    def __init__(
        self,
        folder: Path,
        *,
        heap: str = "512m",
        username: str = "scores",
        password: str = "scores-secret",
        tls: TlsFiles | None = None,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(folder)
        self.port = free_port()
        self.sasl_port = free_port()
        self.far_port = free_port()
        self.scram_port = free_port()
        self.certified_port = free_port()
        self.controller_port = free_port()
        self.username = username
        self.password = password
        self.tls = tls
        self.heap = heap
        self.settings = dict(settings or {})

    @property
    def bootstrap(self) -> str:
        """`HOST:PORT` of the open listener."""
        return f"{self.host}:{self.port}"

    @property
    def sasl_bootstrap(self) -> str:
        """`HOST:PORT` of the listener that wants a login."""
        return f"{self.host}:{self.sasl_port}"

    @property
    def far_bootstrap(self) -> str:
        """`HOST:PORT` of the listener that is advertised by another address."""
        return f"{self.host}:{self.far_port}"

    @property
    def scram_bootstrap(self) -> str:
        """`HOST:PORT` of the listener that wants TLS and a login by SCRAM."""
        return f"{self.host}:{self.scram_port}"

    @property
    def certified_bootstrap(self) -> str:
        """`HOST:PORT` of the listener that wants TLS and a certificate of the client."""
        return f"{self.host}:{self.certified_port}"

    @contextlib.contextmanager
    def admin(self) -> Iterator[KafkaAdminClient]:
        """Have an admin client for the length of a `with` block."""
        client = KafkaAdminClient(bootstrap_servers=self.bootstrap)
        try:
            yield client
        finally:
            client.close()

    def create_topic(self, name: str, partitions: int = 1, **config: object) -> str:
        """Create a topic and wait until every partition has a leader. Returns its name.

        `config` has underscores for dots: `cleanup_policy="compact"`.
        """
        configs = {key.replace("_", "."): str(value) for key, value in config.items()}
        new = {"num_partitions": partitions, "replication_factor": 1, "configs": configs}
        with self.admin() as admin:
            admin.create_topics({name: new}, wait_for_metadata=True)
        return name

    def create_partitions(self, topic: str, total: int) -> None:
        """Grow `topic` to `total` partitions."""
        with self.admin() as admin:
            admin.create_partitions({topic: total})
            admin.wait_for_topics([topic])

    def delete_topic(self, topic: str) -> None:
        """Delete `topic`; its records are gone soon after."""
        with self.admin() as admin:
            admin.delete_topics([topic])

    def delete_records(self, topic: str, before: Mapping[int, int]) -> None:
        """Delete the records below an offset, by partition, as retention would."""
        offsets = {TopicPartition(topic, number): offset for number, offset in before.items()}
        with self.admin() as admin:
            admin.delete_records(offsets)

    def prepare(self) -> None:
        (self.folder / "tmp").mkdir(exist_ok=True)
        (self.folder / "log4j.properties").write_text(LOG4J)
        settings = "".join(f"{key}={value}\n" for key, value in self._properties().items())
        (self.folder / "server.properties").write_text(settings)
        if not (self.folder / "data" / "meta.properties").exists():
            self._format()

    def command(self) -> Sequence[str]:
        return [*self._java(), "kafka.Kafka", str(self.folder / "server.properties")]

    def ready(self) -> bool:
        if not (port_open(self.host, self.port) and port_open(self.host, self.sasl_port)):
            return False
        with contextlib.suppress(KafkaError), self.admin() as admin:
            return bool(admin.describe_cluster()["brokers"])
        return False

    def _java(self) -> list[str]:
        return [
            artifacts.java(),
            f"-Xmx{self.heap}",
            "-XX:+UseSerialGC",
            "-XX:+PerfDisableSharedMem",
            f"-Djava.io.tmpdir={self.folder / 'tmp'}",
            f"-Dlog4j.configuration={(self.folder / 'log4j.properties').as_uri()}",
            "-cp",
            f"{artifacts.jars(self.name)}/*",
        ]

    def _format(self) -> None:
        arguments = ["format", "-t", CLUSTER_ID, "-c", str(self.folder / "server.properties")]
        if self.tls:
            login = f"[name={self.username},password={self.password}]"
            for mechanism in SCRAM:
                arguments += ["--add-scram", f"{mechanism}={login}"]
        done = subprocess.run(
            [*self._java(), "kafka.tools.StorageTool", *arguments],
            cwd=self.folder,
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise ServerError(f"kafka could not format its folder:\n{done.stdout}{done.stderr}")

    def _properties(self) -> dict[str, str]:
        login = (
            "org.apache.kafka.common.security.plain.PlainLoginModule required"
            f' user_{self.username}="{self.password}";'
        )
        listeners = {
            "OPEN": ("PLAINTEXT", self.bootstrap),
            "LOGIN": ("SASL_PLAINTEXT", self.sasl_bootstrap),
            "FAR": ("PLAINTEXT", self.far_bootstrap),
        }
        if self.tls:
            listeners["SCRAM"] = ("SASL_SSL", self.scram_bootstrap)
            listeners["CERTIFIED"] = ("SSL", self.certified_bootstrap)
        places = {name: f"{name}://{place}" for name, (_, place) in listeners.items()}
        return {
            "process.roles": "broker,controller",
            "node.id": "1",
            "controller.quorum.voters": f"1@{self.host}:{self.controller_port}",
            "controller.listener.names": "CONTROLLER",
            "inter.broker.listener.name": "OPEN",
            "listeners": f"{','.join(places.values())},"
            f"CONTROLLER://{self.host}:{self.controller_port}",
            "advertised.listeners": ",".join((places | {"FAR": f"FAR://{NOWHERE}"}).values()),
            "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,"
            + ",".join(f"{name}:{protocol}" for name, (protocol, _) in listeners.items()),
            "sasl.enabled.mechanisms": "PLAIN",
            "listener.name.login.plain.sasl.jaas.config": login,
            "log.dirs": str(self.folder / "data"),
            "auto.create.topics.enable": "false",
            "num.network.threads": "2",
            "num.io.threads": "4",
            "offsets.topic.num.partitions": "1",
            "offsets.topic.replication.factor": "1",
            "transaction.state.log.num.partitions": "1",
            "transaction.state.log.replication.factor": "1",
            "transaction.state.log.min.isr": "1",
            "group.initial.rebalance.delay.ms": "0",
            # a broker that was killed waits at its start until its last session is over
            "broker.session.timeout.ms": "3000",
            "broker.heartbeat.interval.ms": "500",
            # compaction and retention within a test's patience
            "log.initial.task.delay.ms": "500",
            "log.retention.check.interval.ms": "1000",
            "log.cleaner.backoff.ms": "500",
            "log.cleaner.dedupe.buffer.size": "16777216",
            # not at once: a flush that is under way in it would fail, and with it the broker
            "log.segment.delete.delay.ms": "3000",
            **self._security(),
            **self.settings,
        }

    def _security(self) -> dict[str, str]:
        if not self.tls:
            return {}
        scram = "org.apache.kafka.common.security.scram.ScramLoginModule required;"
        prefix = "listener.name.scram"
        return {
            "ssl.keystore.location": str(self.tls.keystore),
            "ssl.keystore.password": self.tls.password,
            "ssl.keystore.type": "PKCS12",
            "ssl.truststore.location": str(self.tls.truststore),
            "ssl.truststore.password": self.tls.password,
            "ssl.truststore.type": "PKCS12",
            "listener.name.certified.ssl.client.auth": "required",
            f"{prefix}.sasl.enabled.mechanisms": ",".join(SCRAM),
            **{f"{prefix}.{name.lower()}.sasl.jaas.config": scram for name in SCRAM},
        }
