"""What every benchmark is given: how much to measure, a folder, servers when it asks for them."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import psutil

from benchmarks.figures import Measured
from benchmarks.worker import Work, run_process
from group_scores.runners.simulate import Simulation, simulate
from group_scores.runners.simulate_to import open_destination
from tests.servers.cassandra_server import CassandraServer, create_tables
from tests.servers.kafka_server import KafkaServer

PARTITIONS = 4
_SEED = 1
_QUIET = 0.1  # of a core
_LONGEST_WAIT_S = 10.0


@dataclass
class Servers:
    """A Kafka and a Cassandra; each is started when it is first asked for."""

    folder: Path

    @cached_property
    def kafka(self) -> KafkaServer:
        """The broker."""
        return KafkaServer(self.folder / "kafka").start()

    @cached_property
    def cassandra(self) -> CassandraServer:
        """The node."""
        return CassandraServer(self.folder / "cassandra").start()

    def stop(self) -> None:
        """Stop what was started."""
        for name in ("kafka", "cassandra"):
            if name in self.__dict__:
                self.__dict__[name].kill()


class Bench:
    """One run of the benchmarks. `say` is told what is being done, a short line each time."""

    def __init__(
        self,
        folder: Path,
        servers: Servers,
        *,
        events: int,
        rounds: int,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.folder = folder
        self.servers = servers
        self.events = events
        self.rounds = rounds
        self.say = say
        self._numbers = itertools.count(1)

    def alternate(
        self,
        variants: Mapping[str, Callable[[], Measured]],
        *,
        rounds: int | None = None,
        warm_up: bool = True,
    ) -> dict[str, list[Measured]]:
        """Run the variants in turns, each round in the other order, after one that does not count.

        What changes on the machine while this takes its time changes for all of them.
        """
        names = list(variants)
        found: dict[str, list[Measured]] = {name: [] for name in names}
        if warm_up:
            for name in names:
                self.say(f"{name}, warm-up")
                variants[name]()
        count = rounds or self.rounds
        for number in range(count):
            for name in names if number % 2 == 0 else reversed(names):
                self.say(f"{name}, round {number + 1} of {count}")
                found[name].append(variants[name]())
        return found

    def run(self, work: Work) -> Measured:
        """Run it in a process of its own, when the servers have nothing left to do."""
        self._wait_until_quiet()
        return run_process(work)

    def events_file(self, events: int) -> Path:
        """Return a file of simulated events; a second time, the same one."""
        path = self.folder / f"events-{events}.jsonl"
        if not path.exists():
            self._simulate(events, str(path))
        return path

    def events_topic(self, events: int, partitions: int = PARTITIONS) -> str:
        """Return the address of a topic of simulated events; a second time, the same one.

        Compressed, as producers in the field do; read from its start, by a new group each time.
        """
        name = f"events-{events}-{partitions}"
        kafka = self.servers.kafka
        with kafka.admin() as admin:
            known = name in admin.list_topics()
        address = f"kafka://{kafka.bootstrap}/{name}"
        if not known:
            kafka.create_topic(name, partitions, compression_type="lz4")
            self._simulate(events, address)
        return f"{address}?start=earliest&until=latest&group=benchmark-{next(self._numbers)}"

    @contextmanager
    def tables(self) -> Iterator[str]:
        """Make a keyspace, and drop it when its round is over; the store's address."""
        cassandra = self.servers.cassandra
        name = f"round_{next(self._numbers)}"
        with cassandra.session() as session:
            create_tables(session, name)
            try:
                yield f"cassandra://{cassandra.host}:{cassandra.port}/{name}"
            finally:
                session.execute(f"DROP KEYSPACE {name}")

    @contextmanager
    def database(self) -> Iterator[str]:
        """Have a new SQLite file for one round; the store's address."""
        path = self.folder / f"scores-{next(self._numbers)}.db"
        try:
            yield f"sqlite:{path}"
        finally:
            for one in self.folder.glob(f"{path.name}*"):
                one.unlink()

    @property
    def dead_letters(self) -> str:
        """Where refused events go: none of those that are simulated here is."""
        return str(self.folder / "dead-letter.jsonl")

    def server_pids(self) -> dict[str, int]:
        """Return the process ids of the servers that run."""
        return {
            name: self.servers.__dict__[name].pid
            for name in ("kafka", "cassandra")
            if name in self.servers.__dict__
        }

    def servers_cpu_s(self) -> dict[str, float]:
        """Return the CPU seconds that each server has used."""
        found = {}
        for name, pid in self.server_pids().items():
            times = psutil.Process(pid).cpu_times()
            found[name] = float(times.user + times.system)
        return found

    def _simulate(self, events: int, address: str) -> None:
        self.say(f"making {events:,} events")
        with open_destination(address, None) as send:
            for key, event in simulate(Simulation(events, _SEED)):
                send(key, event)
        from group_scores.transforms.resources import close_shared  # it loads Beam

        close_shared()

    def _wait_until_quiet(self) -> None:
        """Let the servers end what the round before left them to do (compaction, flushes)."""
        processes = [psutil.Process(pid) for pid in self.server_pids().values()]
        deadline = time.monotonic() + _LONGEST_WAIT_S
        while processes and time.monotonic() < deadline:
            for process in processes:
                process.cpu_percent()
            time.sleep(0.5)
            if sum(process.cpu_percent() for process in processes) < 100 * _QUIET:
                return


Figures = dict[str, Any]


@contextmanager
def every(seconds: float, look: Callable[[], object]) -> Iterator[None]:
    """Call `look` in a thread, so many seconds after its last call, for the length of the block."""
    over = threading.Event()

    def follow() -> None:
        while not over.wait(seconds):
            look()

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def table_of(title: str, columns: Sequence[str]) -> Any:
    """Return an empty table with the first column to the left and the others to the right."""
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index == 0 else "right", no_wrap=index == 0)
    return table
