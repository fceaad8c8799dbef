"""On a real Flink cluster: two task managers with a pool of Python workers each, and their ends."""

from __future__ import annotations

import json
import random
import re
import signal
import subprocess
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from group_scores.runners.simulate import Simulation, simulate
from group_scores.transforms.metrics import STREAM_NAMES
from tests import naive
from tests.integration.flink_runs import WAIT_S, Reading, metric, streaming
from tests.integration.pipeline_runs import (
    PROGRAM,
    Keyed,
    Tables,
    arguments,
    consume,
    differences,
    own_fields,
    produce,
    run,
)
from tests.servers.cassandra_server import CassandraServer
from tests.servers.flink_cluster import FlinkCluster
from tests.servers.kafka_server import KafkaServer
from tests.servers.process import free_port
from tests.servers.zookeeper_server import ZooKeeperServer

PARTITIONS = 4
QUICK = ("--checkpointing_interval=1000",)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FlinkCluster]:
    """Two task managers with a slot each."""
    found = FlinkCluster(tmp_path_factory.mktemp("flink"))
    yield found.start()
    found.kill()


@pytest.fixture
def no_jobs(cluster: FlinkCluster) -> Iterator[None]:
    """Whatever a test leaves running is cancelled."""
    yield
    for job in cluster.jobs("RUNNING", "RESTARTING", "CREATED"):
        cluster.cancel_job(job)
    eventually(lambda: not cluster.jobs("RUNNING", "RESTARTING", "CREATED", "CANCELLING"))


def eventually(true: Callable[[], object], seconds: float = 60) -> None:
    """Wait until it is."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def assert_only_the_refused(letters: Sequence[bytes], messages: Sequence[bytes]) -> None:
    """No dead letter of a valid event, and one at least for each that is not."""
    refused = {own_fields(m) for m in messages if naive.refusal(m) is not None}
    assert {own_fields(letter) for letter in letters} == refused


class Stream:
    """One topic, one keyspace, and endless runs of it on the cluster."""

    def __init__(
        self, cluster: FlinkCluster, kafka: KafkaServer, topic: str, store: str, folder: Path
    ) -> None:
        self.cluster, self.kafka, self.topic, self.store = cluster, kafka, topic, store
        kafka.create_topic(f"{topic}.failed", 1)
        self.source = f"kafka://{kafka.bootstrap}/{topic}?until=forever"
        self.log = folder / "stream.log"
        self.sent: list[bytes] = []

    def send(self, events: Sequence[Keyed]) -> None:
        produce(self.kafka.bootstrap, self.topic, events)
        self.sent += [event for _, event in events]

    def run(
        self, *words: str, parallelism: int = 2
    ) -> AbstractContextManager[subprocess.Popen[bytes]]:
        """Have a run for the length of a `with` block."""
        words = (*self.cluster.arguments, *QUICK, f"--parallelism={parallelism}", *words)
        return streaming(self.source, self.store, self.log, words)

    def reading(self) -> Reading:
        return Reading(self.source, self.log, partitions=PARTITIONS)

    def job(self) -> str:
        """Return the id of the job that runs."""
        (job,) = self.cluster.jobs("RUNNING")
        return job

    def metric(self, name: str) -> float:
        return metric(self.cluster.metrics(), name)

    def check(self) -> None:
        """The rows equal the naive recomputation, and only what is refused is a dead letter."""
        assert not differences(Tables.read(self.store), self.sent)
        letters = consume(self.kafka.bootstrap, f"{self.topic}.failed")
        assert_only_the_refused(letters, self.sent)


@pytest.fixture
def stream_on(
    cassandra: CassandraServer,
    kafka: KafkaServer,
    topic: Callable[..., str],
    keyspace: Callable[..., str],
    tmp_path: Path,
) -> Callable[[FlinkCluster], Stream]:
    """A topic and a keyspace for a cluster of the test's own."""

    def make(cluster: FlinkCluster) -> Stream:
        store = f"cassandra://{cassandra.host}:{cassandra.port}/{keyspace()}"
        return Stream(cluster, kafka, topic(partitions=PARTITIONS), store, tmp_path)

    return make


@pytest.fixture
def stream(
    cluster: FlinkCluster, no_jobs: None, stream_on: Callable[[FlinkCluster], Stream]
) -> Stream:
    return stream_on(cluster)


def test_a_savepoint_takes_over_and_nothing_comes_twice(stream: Stream) -> None:
    """Metrics and a trickle on the way; a second run of its name; new partitions; a drain."""
    cluster = stream.cluster
    events = list(simulate(Simulation(2_000, 91, redeliver=0.1, shuffle=0.2, invalid=0.02)))
    half = len(events) // 2
    stream.send(events[:half])
    with stream.reading() as reading, stream.run() as launcher:
        reading.wait(half, launcher)
        eventually(lambda: stream.metric("event_latencies") == half)
        text = cluster.metrics()
        assert metric(text, "events") == half
        assert metric(text, "kafka_records") == half
        for manager in cluster.task_managers:  # each has a reader with some of the partitions
            assert metric(manager.told(), "kafka_records") > 0
        assert metric(text, "attempts_written") > 0
        assert metric(text, "aggregates_written") > 0
        assert metric(text, "dead_letters") > 0
        by_field = metric(text, r"dead_letters_field_\w+")
        assert by_field == metric(text, "dead_letters_ParseEvent") > 0
        assert metric(text, "store_calls") > 0
        told = set(re.findall(r"operator_group_scores_(\w+)\{", text))
        assert told <= {*STREAM_NAMES, "aggregates_unchanged", "aggregates_not_taken"}

        _trickle(stream, reading, launcher, seconds=15)
        before = len(stream.sent)

        # Another of its name is refused in one line.
        again = subprocess.run(
            arguments("run", *cluster.arguments, source=stream.source, store=stream.store),
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert again.returncode == 2
        assert "a job named group-scores is running" in again.stderr
        savepoint = cluster.stop_job(stream.job())
        assert launcher.wait(60) == 0, stream.log.read_text()
    stream.kafka.create_partitions(stream.topic, PARTITIONS + 1)
    stream.send(events[half:])
    with (
        Reading(stream.source, stream.log, partitions=PARTITIONS + 1) as reading,
        stream.run(f"--savepoint_path={savepoint}") as launcher,
    ):
        reading.wait(len(stream.sent), launcher)
        eventually(lambda: stream.metric("kafka_records") == len(stream.sent) - before)
        launcher.terminate()
        assert launcher.wait(20) == 128 + signal.SIGTERM
        assert "the job, if it was taken, goes on" in stream.log.read_text()
        time.sleep(2)
        cluster.stop_job(stream.job(), drain=True)
        assert not cluster.jobs("RUNNING", "RESTARTING")
    stream.check()


@pytest.mark.soak
def test_a_trickle_lets_nothing_grow_for_long(stream: Stream) -> None:
    with stream.reading() as reading, stream.run() as launcher:
        _trickle(stream, reading, launcher, seconds=1_200)
    stream.check()


def _trickle(
    stream: Stream, reading: Reading, launcher: subprocess.Popen[bytes], *, seconds: int
) -> None:
    """Twenty events a second: checkpoints of one size, and no more threads than at first."""
    rate = 20
    read = len(stream.sent)
    events = list(simulate(Simulation(rate * (seconds + 1), 95)))
    pools = stream.cluster.pools
    sizes, threads = [], []
    stream.send(events[:rate])
    reading.wait(read + rate, launcher)
    # Once every reader was asked for its offsets.
    completed = _checkpoints(stream)["counts"]["completed"]
    eventually(lambda: _checkpoints(stream)["counts"]["completed"] > completed + 2)
    before = _checkpoints(stream)["counts"]
    for second in range(1, seconds + 1):
        stream.send(events[rate * second : rate * (second + 1)])
        time.sleep(1)
        sizes.append(_checkpoints(stream)["latest"]["completed"]["state_size"])
        threads.append(sum(w.num_threads() for pool in pools for w in pool.workers()))
    reading.wait(read + len(events), launcher)
    counts = _checkpoints(stream)["counts"]
    assert len(set(sizes)) == 1, sizes
    assert max(threads[seconds // 2 :]) <= max(threads[: seconds // 2]), threads
    assert counts["completed"] - before["completed"] > seconds / 2
    assert counts["failed"] == before["failed"]  # those that were due while the workers started


def _checkpoints(stream: Stream) -> Any:
    """What the job manager tells of them."""
    return stream.cluster.job_manager.get(f"/jobs/{stream.job()}/checkpoints")


def test_workers_that_are_killed_come_back(stream: Stream, cassandra: CassandraServer) -> None:
    """A Python worker, then a task manager while Cassandra is away."""
    made = _events(2_000, 92)
    with stream.reading() as reading, stream.run() as launcher:
        _kill_workers(stream, cassandra, reading, launcher, made, paused_s=2.0)
        stream.send(made[3 * (len(made) // 5) :])
        reading.wait(len(made), launcher)
        assert reading.committed() == len(made)
    stream.check()


@pytest.mark.soak
def test_what_is_killed_comes_back(
    stream: Stream, cassandra: CassandraServer, kafka: KafkaServer
) -> None:
    """A Python worker, a task manager, then the job manager, which forgets the job."""
    _kill_all(stream, cassandra, kafka, _events(3_000, 92), paused_s=2.0)


@pytest.mark.soak
def test_what_is_killed_comes_back_for_long(
    stream: Stream, cassandra: CassandraServer, kafka: KafkaServer
) -> None:
    _kill_all(stream, cassandra, kafka, _events(50_000, 93), paused_s=20.0)


def _events(number: int, seed: int) -> list[Keyed]:
    return list(simulate(Simulation(number, seed, redeliver=0.2, shuffle=0.3, invalid=0.02)))


def _kill_workers(
    stream: Stream,
    cassandra: CassandraServer,
    reading: Reading,
    launcher: subprocess.Popen[bytes],
    made: Sequence[Keyed],
    *,
    paused_s: float,
) -> None:
    """Send three fifths of the events, and kill on the way; all of them are read at the end."""
    cluster = stream.cluster
    fifth = len(made) // 5
    dice = random.Random(fifth)
    stream.send(made[:fifth])
    reading.wait(fifth // 2, launcher)
    workers = [worker for pool in cluster.pools for worker in pool.workers()]
    assert len(workers) == 2
    dice.choice(workers).kill()
    stream.send(made[fifth : 2 * fifth])
    reading.wait(2 * fifth, launcher)

    stream.send(made[2 * fifth : 3 * fifth])
    time.sleep(dice.uniform(0.2, 2.0))
    manager = dice.choice(cluster.task_managers)
    manager.kill()
    with cassandra.paused():
        time.sleep(paused_s)
    manager.start()
    reading.wait(3 * fifth, launcher)


def _kill_all(
    stream: Stream,
    cassandra: CassandraServer,
    kafka: KafkaServer,
    made: Sequence[Keyed],
    *,
    paused_s: float,
) -> None:
    cluster = stream.cluster
    fifth = len(made) // 5
    dice = random.Random(fifth)
    with stream.reading() as reading:
        with stream.run() as launcher:
            _kill_workers(stream, cassandra, reading, launcher, made, paused_s=paused_s)
            sender = threading.Thread(target=stream.send, args=(made[3 * fifth : 4 * fifth],))
            with kafka.paused():
                sender.start()
                time.sleep(paused_s)
            sender.join()
            time.sleep(dice.uniform(0.2, 2.0))
            # Without high availability a job is lost with its job manager.
            cluster.job_manager.kill()
            launcher.wait(WAIT_S)
            assert launcher.returncode == 1, stream.log.read_text()[-3000:]
        cluster.job_manager.start()
        cluster.start()
        with stream.run() as launcher:
            stream.send(made[4 * fifth :])
            reading.wait(len(made), launcher)
        assert reading.committed() == len(made)
    stream.check()


@pytest.mark.soak
def test_twenty_starts_in_a_row_all_read(stream: Stream) -> None:
    """With checkpoints every second, each is read in the first half minute of its job."""
    cluster = stream.cluster
    events = list(simulate(Simulation(1_000, 96)))
    for number in range(20):
        some = events[50 * number : 50 * (number + 1)]
        stream.send(some)
        with stream.reading() as reading, stream.run() as launcher:
            eventually(lambda: cluster.jobs("RUNNING"))
            start_s = time.monotonic()
            reading.wait(50 * (number + 1), launcher)
            assert time.monotonic() - start_s < 30
            launcher.terminate()
            assert launcher.wait(20) == 128 + signal.SIGTERM
        cluster.cancel_job(stream.job())
        eventually(lambda: not cluster.jobs("RUNNING", "CANCELLING"))
    assert "nothing was read" not in stream.log.read_text()
    stream.check()


@pytest.mark.soak
def test_a_job_without_workers_is_told(stream: Stream) -> None:
    """It runs, as its cluster says, and reads nothing: the launcher sees it at the group."""
    stream.send(list(simulate(Simulation(50, 97))))
    metrics = f"127.0.0.1:{free_port()}"
    for pool in stream.cluster.pools:
        pool.kill()
    try:
        with stream.reading() as reading, stream.run(f"--metrics-listen={metrics}") as launcher:
            eventually(lambda: "nothing was read of kafka" in stream.log.read_text(), WAIT_S)
            with urllib.request.urlopen(f"http://{metrics}/metrics", timeout=10) as answer:
                told = answer.read().decode()
            assert "group_scores_stalled 1.0" in told
            assert "group_scores_job_running 1.0" in told
            lags = re.findall(r"^group_scores_lag\{[^}]*\} (\S+)", told, re.MULTILINE)
            assert sum(map(float, lags)) == 50
            for pool in stream.cluster.pools:
                pool.start()
            reading.wait(50, launcher)
    finally:
        stream.cluster.start()


@pytest.mark.soak
def test_partitions_that_are_added_are_read(stream: Stream) -> None:
    """While it runs; and one that has nothing holds no other back."""
    events = list(simulate(Simulation(1_000, 98, redeliver=0.1)))
    half = len(events) // 2
    more = PARTITIONS + 3
    with stream.reading() as reading, stream.run() as launcher:
        stream.send(events[:half])
        reading.wait(half, launcher)
        stream.kafka.create_partitions(stream.topic, more)
        stream.send(events[half:])
        with Reading(stream.source, stream.log, partitions=more) as all_of_it:
            all_of_it.wait(len(events), launcher)
    stream.check()


def test_a_cluster_without_slots_is_told_at_once(stream: Stream) -> None:
    with stream.run(parallelism=9) as launcher:
        assert launcher.wait(60) == 2
    assert "2 free of 2 slots" in stream.log.read_text()


@pytest.mark.soak
def test_a_cluster_without_beam_is_given_it(
    kafka: KafkaServer,
    cassandra: CassandraServer,
    topic: Callable[..., str],
    keyspace: Callable[..., str],
    tmp_path: Path,
) -> None:
    """Its jars are staged with the job; the task managers start the Python workers themselves."""
    name = topic(partitions=PARTITIONS)
    kafka.create_topic(f"{name}.failed", 1)
    store = f"cassandra://{cassandra.host}:{cassandra.port}/{keyspace()}"
    events = list(simulate(Simulation(1_000, 94, redeliver=0.1)))
    produce(kafka.bootstrap, name, events)
    cluster = FlinkCluster(tmp_path / "flink", with_beam=False)
    cluster.start()
    try:
        where = ("--runner", "FlinkRunner", "--flink_master", cluster.job_manager.address)
        command = json.dumps({"command": PROGRAM.replace("group-scores", "group-scores-worker")})
        words = ("--environment_type=PROCESS", f"--environment_config={command}")
        source = f"kafka://{kafka.bootstrap}/{name}"
        summary = run("run", *where, *words, "--parallelism=2", source=source, store=store)
        assert summary["events"] == len(events)
        assert not differences(Tables.read(store), [event for _, event in events])
        again = run("run", *where, *words, "--parallelism=2", source=store, store=store)
        assert again["aggregates_written"] == 0
        assert again["aggregates_unchanged"] > 50
    finally:
        cluster.kill()


@pytest.mark.soak
def test_a_job_grows_with_its_task_managers(
    stream_on: Callable[[FlinkCluster], Stream], tmp_path: Path
) -> None:
    """With the adaptive scheduler: one slot where two were asked for, then two."""
    cluster = FlinkCluster(tmp_path / "flink", settings={"jobmanager.scheduler": "adaptive"})
    stream = stream_on(cluster)
    events = list(simulate(Simulation(2_000, 95, redeliver=0.1, shuffle=0.2)))
    half = len(events) // 2
    late = cluster.task_managers[1]
    try:
        cluster.start(but=late)
        stream.send(events[:half])
        with stream.reading() as reading, stream.run() as launcher:
            reading.wait(half, launcher)
            job = stream.job()
            assert cluster.parallelism(job) == 1
            late.start()
            eventually(lambda: cluster.parallelism(job) == 2)
            stream.send(events[half:])
            reading.wait(len(events), launcher)
            late.kill()
            eventually(lambda: cluster.parallelism(job) == 1)
            eventually(lambda: cluster.jobs("RUNNING"))
        stream.check()
    finally:
        cluster.kill()


@pytest.mark.soak
def test_a_new_job_manager_takes_the_job_up_again(
    stream_on: Callable[[FlinkCluster], Stream], tmp_path: Path
) -> None:
    """With high availability, and with nobody who would submit the job again."""
    zookeeper = ZooKeeperServer(tmp_path / "zookeeper")
    settings = {
        "high-availability.type": "zookeeper",
        "high-availability.zookeeper.quorum": zookeeper.address,
        "high-availability.zookeeper.client.session-timeout": 5_000,
        "high-availability.storageDir": (tmp_path / "ha").as_uri(),
    }
    cluster = FlinkCluster(tmp_path / "flink", settings=settings)
    stream = stream_on(cluster)
    events = list(simulate(Simulation(2_000, 99, redeliver=0.1, shuffle=0.2)))
    half = len(events) // 2
    try:
        zookeeper.start()
        cluster.start()
        stream.send(events[:half])
        with stream.reading() as reading:
            with stream.run() as launcher:
                reading.wait(half, launcher)
                job = stream.job()
                launcher.terminate()
                assert launcher.wait(20) == 128 + signal.SIGTERM
            cluster.job_manager.kill()
            time.sleep(10)  # the task managers miss it, and let go of the job
            cluster.job_manager.start()
            eventually(lambda: cluster.jobs("RUNNING"))
            stream.send(events[half:])
            reading.wait(len(events))
            assert stream.job() == job
        stream.check()
    finally:
        cluster.kill()
        zookeeper.kill()
