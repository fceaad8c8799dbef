"""A ZooKeeper of one node, which Flink's job managers keep their leader and their jobs in."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tests.servers import artifacts
from tests.servers.process import Server, free_port, port_open


class ZooKeeperServer(Server):
    """One node, from the classes that come with Kafka; `address` is HOST:PORT."""

    name = "zookeeper"
    start_timeout_s = 30.0

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.port = free_port()
        self.address = f"{self.host}:{self.port}"

    def prepare(self) -> None:
        settings = {
            "dataDir": self.folder / "data",
            "clientPort": self.port,
            "clientPortAddress": self.host,
            "admin.enableServer": "false",
        }
        lines = (f"{key}={value}\n" for key, value in settings.items())
        (self.folder / "zoo.cfg").write_text("".join(lines))

    def command(self) -> Sequence[str]:
        return [
            artifacts.java(),
            "-Xmx64m",
            "-XX:+UseSerialGC",
            "-XX:+PerfDisableSharedMem",
            "-cp",
            f"{artifacts.jars('kafka')}/*",
            "org.apache.zookeeper.server.quorum.QuorumPeerMain",
            str(self.folder / "zoo.cfg"),
        ]

    def ready(self) -> bool:
        return port_open(self.host, self.port)
