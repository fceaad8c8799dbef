"""A trickle of events through a Flink cluster: latency, and what grows while nothing should.

Twenty events a second, each of a learner of its own. The latency is from the record's timestamp in
Kafka to when a reader of Cassandra finds the aggregate. Meanwhile the size of the checkpoints is
noted, and the memory and the threads of every process.
"""

from __future__ import annotations

import itertools
import json
import statistics
import threading
import time
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import psutil
from kafka import KafkaProducer

from benchmarks.bench import PARTITIONS, Bench, Figures, every, table_of
from benchmarks.endless import EndlessRun, endless_run
from group_scores.runners.simulate import Simulation, simulate
from tests.servers.flink_cluster import FlinkCluster

AIM_MS = 500
RATE = 20.0
_WARM_UP = 100
_LOOK_S = 0.005
_NOTE_S = 5.0
_LATE_S = 30.0
_NAMES = itertools.count(1)


def measure(bench: Bench) -> Figures:
    """Return the latencies, and the first and the last of what should stay level."""
    cluster = FlinkCluster(bench.folder / "flink", task_managers=2, slots=1)
    kafka = bench.servers.kafka
    topic = kafka.create_topic(f"trickle-{next(_NAMES)}", PARTITIONS)
    cluster.start()
    try:
        with (
            bench.tables() as store,
            endless_run(
                cluster,
                f"kafka://{kafka.bootstrap}/{topic}?until=forever&group={topic}",
                store,
                bench.folder,
                *("--parallelism=2", "--checkpointing_interval=1000"),
                f"--dead-letter={bench.dead_letters}",
                partitions=PARTITIONS,
            ) as run,
        ):
            return _measure(bench, run, store.rpartition("/")[2], topic)
    finally:
        cluster.kill()


def _measure(bench: Bench, run: EndlessRun, keyspace: str, topic: str) -> Figures:
    sender = _Sender(bench.servers.kafka.bootstrap, topic)
    bench.say("waiting for the first events")
    for event in sender.events(_WARM_UP):
        sender.send(event)
    run.wait(_WARM_UP)
    bench.say(f"{bench.events:,} events, {RATE:g} a second")
    notes = _Notes(run)
    with bench.servers.cassandra.session() as session:
        reader = _Reader(session, keyspace)
        with every(_NOTE_S, notes.take), every(_LOOK_S, reader.look):
            start_s = time.monotonic()
            for number, event in enumerate(sender.events(bench.events)):
                time.sleep(max(0.0, start_s + number / RATE - time.monotonic()))
                sent_ms = sender.send(event)
                reader.expect(event, sent_ms)
            reader.wait()
    latencies = sorted(reader.latencies_ms)
    return {
        "events": bench.events,
        "missing": reader.missing,
        "latency_ms": {
            "p50": round(statistics.median(latencies)),
            "p95": round(latencies[int(0.95 * len(latencies))]),
            "p99": round(latencies[int(0.99 * len(latencies))]),
            "greatest": round(latencies[-1]),
        },
        "aim_p95_ms": AIM_MS,
        **notes.figures(),
    }


class _Sender:
    """Sends simulated events, each with a learner of its own."""

    def __init__(self, bootstrap: str, topic: str) -> None:
        self._producer = KafkaProducer(bootstrap_servers=bootstrap, linger_ms=0)
        self._topic = topic
        self._learners = itertools.count(1)

    def events(self, number: int) -> Sequence[dict[str, Any]]:
        made = []
        for _, event in simulate(Simulation(number, 7)):
            found = json.loads(event)
            found["userId"] = f"learner-{next(self._learners)}"
            made.append(found)
        return made

    def send(self, event: dict[str, Any]) -> int:
        """Return the record's timestamp."""
        key = event["userId"].encode()
        record = self._producer.send(self._topic, value=json.dumps(event).encode(), key=key)
        return int(record.get(10).timestamp)


class _Reader:
    """Asks for the aggregate of every event until it is there."""

    def __init__(self, session: Any, keyspace: str) -> None:
        self.latencies_ms: list[float] = []
        self.missing = 0
        self._session = session
        self._statement = session.prepare(
            f"SELECT user_id FROM {keyspace}.user_activity_agg WHERE activity_type = 'Course' "
            "AND activity_id = ? AND user_id = ? AND context_id = ?"
        )
        self._waiting: dict[tuple[str, str, str], int] = {}
        self._lock = threading.Lock()

    def expect(self, event: dict[str, Any], sent_ms: int) -> None:
        key = event["courseId"], event["userId"], f"cb:{event['batchId']}"
        with self._lock:
            self._waiting[key] = sent_ms

    def wait(self) -> None:
        """Wait for the last ones."""
        deadline = time.monotonic() + _LATE_S
        while self._waiting and time.monotonic() < deadline:
            time.sleep(0.1)
        self.missing = len(self._waiting)

    def look(self) -> None:
        """Ask once for each that is waited for."""
        with self._lock:
            keys = list(self._waiting)
        asked = [(key, self._session.execute_async(self._statement, key)) for key in keys]
        for key, answer in asked:
            if answer.result().one():
                with self._lock:
                    self.latencies_ms.append(time.time() * 1000 - self._waiting.pop(key))


class _Notes:
    """What should stay level, as it was each time."""

    def __init__(self, run: EndlessRun) -> None:
        self._run = run
        self._found: dict[str, list[float]] = defaultdict(list)

    def take(self) -> None:
        """Note how it is now."""
        run = self._run
        latest = run.cluster.job_manager.get(f"/jobs/{run.job}/checkpoints")["latest"]
        if done := latest["completed"]:
            self._found["checkpoint_bytes"].append(done["state_size"])
        for name, processes in (("python", run.python()), ("flink", run.jvms())):
            self._found[f"{name}_mb"].append(sum(map(_mb, processes)))
            self._found[f"{name}_threads"].append(sum(p.num_threads() for p in processes))

    def figures(self) -> Figures:
        """Return each one's median in the first minute after the first, and in the last."""
        minute = int(60 / _NOTE_S)
        return {
            "level": {
                name: {
                    "second_minute": statistics.median(found[minute : 2 * minute] or found),
                    "last_minute": statistics.median(found[-minute:]),
                    "greatest": max(found),
                }
                for name, found in self._found.items()
            }
        }


def _mb(process: psutil.Process) -> float:
    return round(process.memory_info().rss / 2**20, 1)


def show(figures: Figures) -> list[Any]:
    """Return the tables."""
    latency = table_of("", ["Trickle, record to readable", "p50", "p95 (aim)", "p99", "greatest"])
    found = figures["latency_ms"]
    latency.add_row(
        f"{figures['events']:,} events, {RATE:g} a second; ms",
        f"{found['p50']}",
        f"{found['p95']} ({figures['aim_p95_ms']})",
        f"{found['p99']}",
        f"{found['greatest']}",
    )
    level = table_of("", ["What should stay level", "second minute", "last minute", "greatest"])
    for name, one in figures["level"].items():
        level.add_row(name.replace("_", " "), *(f"{value:,.0f}" for value in one.values()))
    return [latency, level]
