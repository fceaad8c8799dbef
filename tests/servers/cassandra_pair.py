"""Two Cassandra nodes of one cluster, and what makes them differ."""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Self

from group_scores.stores import java
from group_scores.stores.sstable import artifacts
from tests.servers.cassandra_server import CassandraServer
from tests.servers.process import ServerError

CONTROL = Path(__file__).with_name("NodeControl.java")
PATIENCE_S = 60.0
EXPIRED_MS = 400


class Nodes:
    """Nodes of one cluster, and what an operator does to them, without nodetool's slow start."""

    def __init__(self, *nodes: CassandraServer) -> None:
        self.nodes = nodes
        self._control: subprocess.Popen[str] | None = None

    def close(self) -> None:
        """End what talks to the nodes; they go on."""
        if self._control is not None:
            self._control.kill()
            self._control.communicate()
            self._control = None

    def flush(self, number: int, keyspace: str) -> None:
        """Write what a node has in memory of a keyspace."""
        self._tell(number, "flush", keyspace)

    def compact(self, number: int, keyspace: str) -> None:
        """Have a node merge its SSTables of a keyspace into one."""
        self._tell(number, "compact", keyspace)

    def snapshot(self, tag: str, *keyspaces: str) -> None:
        """Take a snapshot on each node."""
        for number in range(len(self.nodes)):
            self._tell(number, "snapshot", tag, *keyspaces)

    def snapshot_folders(self, tag: str, keyspace: str, table: str) -> list[Path]:
        """Return where it lies, a folder a node."""
        pattern = f"{keyspace}/{table}-*/snapshots/{tag}"
        return [next(node.data.glob(pattern)) for node in self.nodes]

    @contextlib.contextmanager
    def without(self, number: int) -> Iterator[None]:
        """Have writes to the other nodes, at ONE, not come to this one.

        It is frozen until what is under way to it is too old for it. (Gossip takes too long to
        tell nodes of each other, and a restart is slower still.)
        """
        others = [other for other in range(len(self.nodes)) if other != number]
        for other in others:
            self._tell(other, "write-timeout", str(EXPIRED_MS))
        try:
            with self.nodes[number].paused():
                yield
                time.sleep(2 * EXPIRED_MS / 1000)
        finally:
            for other in others:
                self._tell(other, "write-timeout", "20000")

    def wait_until_agreed(self, *keyspaces: str) -> None:
        """Wait until each node has the tables and the replication that the first has.

        Statements about them go to one node, and reach the others a moment later.
        """
        self._wait_until(
            "agree on the tables", lambda: len({_schema(one, keyspaces) for one in self.nodes}) == 1
        )

    def wait_until_whole(self) -> None:
        """Wait until each node knows that each is there."""
        self._wait_until("know each other", self._is_whole)

    def _is_whole(self) -> bool:
        # A driver that does not know a node does not wait for it to know new tables.
        with self.nodes[0].session() as session:
            hosts = session.cluster.metadata.all_hosts()
        count = len(self.nodes)
        known = len(hosts) == count and all(host.is_up for host in hosts)
        return known and all(len(self._live(number)) == count for number in range(count))

    def _live(self, number: int) -> list[str]:
        return self._tell(number, "live").split()

    def _wait_until(self, what: str, done: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not done():
            if time.monotonic() > deadline:
                raise ServerError(f"the nodes do not {what}")
            time.sleep(0.1)

    def _tell(self, number: int, *words: str) -> str:
        if self._control is None:
            self._control = self._start_control()
        assert self._control.stdin
        assert self._control.stdout
        self._control.stdin.write(f"{number} {' '.join(words)}\n")
        self._control.stdin.flush()
        said, _, answer = self._control.stdout.readline().strip().partition(" ")
        if said != "ok":
            raise ServerError(f"{' '.join(words)} on node {number}: {answer}")
        return answer

    def _start_control(self) -> subprocess.Popen[str]:
        """Start the program; it ends with its standard input."""
        ports = [str(node.jmx_port) for node in self.nodes]
        words = [str(java.program()), *artifacts.MODULES, "-Xmx128m", "-XX:+UseSerialGC"]
        return subprocess.Popen(
            [*words, "-cp", artifacts.classpath(CONTROL), CONTROL.stem, *ports],
            cwd=self.nodes[0].folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )


class CassandraPair(Nodes):
    """Nodes on 127.0.0.1 and 127.0.0.2 that hand no hints on: what one misses, it lacks.

    The first writes SSTables of the format `big`, the second `bti`; or both what `settings` say.
    """

    def __init__(self, folder: Path, settings: dict[str, object] | None = None) -> None:
        common: dict[str, object] = {"hinted_handoff_enabled": False}
        common |= settings or {"storage_compatibility_mode": "NONE"}  # else there is no bti
        own = {} if settings else {"sstable": {"selected_format": "bti"}}
        first = CassandraServer(folder / "1", heap="512m", settings=common)
        second = CassandraServer(
            folder / "2",
            heap="512m",
            listen_address="127.0.0.2",
            port=first.port,
            storage_port=first.storage_port,
            seeds=[first.seed],
            settings={**common, **own, "auto_bootstrap": False},
        )
        super().__init__(first, second)

    def start(self) -> Self:
        """Start both, until each knows the other."""
        for node in self.nodes:
            node.start()
        self.wait_until_whole()
        return self

    def kill(self) -> None:
        """Stop both."""
        self.close()
        for node in reversed(self.nodes):
            node.kill()


def _schema(node: CassandraServer, keyspaces: Sequence[str]) -> str:
    columns = {
        "keyspaces": "replication",
        "tables": "table_name, id, compression",
        "columns": "table_name, column_name, type",
    }
    with node.session(alone=True) as session:
        found = [
            sorted(
                repr(row)
                for keyspace in keyspaces
                for row in session.execute(
                    f"SELECT {names} FROM system_schema.{table} WHERE keyspace_name = %s",
                    [keyspace],
                )
            )
            for table, names in columns.items()
        ]
    return repr(found)
