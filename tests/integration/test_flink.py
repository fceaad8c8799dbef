"""On a Flink of its own, on this machine: the same graph, endless and not."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from group_scores.runners.simulate import Simulation, simulate
from tests.integration.flink_runs import Reading, streaming
from tests.integration.pipeline_runs import Tables, differences, produce, run
from tests.servers.cassandra_server import CassandraServer
from tests.servers.kafka_server import KafkaServer

FLINK = ("--runner", "FlinkRunner", "--flink_master", "[local]")
PARTITIONS = 4


def test_a_stream_goes_on_until_it_is_interrupted(
    cassandra: CassandraServer,
    kafka: KafkaServer,
    topic: Callable[..., str],
    keyspace: Callable[..., str],
    tmp_path: Path,
) -> None:
    """Events before the start, while it runs, and while nobody reads; two readers share them."""
    name = topic(partitions=PARTITIONS)
    kafka.create_topic(f"{name}.failed", 1)
    source = f"kafka://{kafka.bootstrap}/{name}?until=forever"
    store = f"cassandra://{cassandra.host}:{cassandra.port}/{keyspace()}"
    events = list(simulate(Simulation(3_000, 81, redeliver=0.1, shuffle=0.2, invalid=0.02)))
    messages = [event for _, event in events]
    words = (*FLINK, "--parallelism", "2", "--checkpointing_interval=1000")
    log = tmp_path / "stream.log"
    produce(kafka.bootstrap, name, events[:1_500])
    with Reading(source, log, partitions=PARTITIONS) as reading:
        with streaming(source, store, log, words) as process:
            reading.wait(1_500, process)
            produce(kafka.bootstrap, name, events[1_500:2_500])
            reading.wait(2_500, process)
            children = psutil.Process(process.pid).children(recursive=True)
            assert children  # the job server
            process.terminate()  # the launcher alone, unlike Ctrl-C
            assert process.wait(20) == 128 + signal.SIGTERM
            assert not psutil.wait_procs(children, timeout=10)[1]
        assert "nothing is lost" in log.read_text()
        assert not differences(Tables.read(store), messages[:2_500])
        produce(kafka.bootstrap, name, events[2_500:])
        with streaming(source, store, log, words) as process:
            reading.wait(len(events), process)
    assert not differences(Tables.read(store), messages)

    # All attempts again, by Flink's batch mode: nothing is left to write.
    summary = run("run", *FLINK, source=store, store=store)
    assert summary["aggregates_written"] == 0
    assert summary["aggregates_unchanged"] > 100


@pytest.mark.parametrize(
    "words",
    [pytest.param((), marks=pytest.mark.soak), ("--parallelism", "2")],
    ids=["one worker", "two"],
)
def test_a_topic_is_read_to_its_end(
    cassandra: CassandraServer,
    kafka: KafkaServer,
    topic: Callable[..., str],
    keyspace: Callable[..., str],
    words: tuple[str, ...],
) -> None:
    name = topic(partitions=2)
    kafka.create_topic(f"{name}.failed", 1)
    source = f"kafka://{kafka.bootstrap}/{name}"
    store = f"cassandra://{cassandra.host}:{cassandra.port}/{keyspace()}"
    events = list(simulate(Simulation(1_000, 82, redeliver=0.1)))
    produce(kafka.bootstrap, name, events)
    summary = run("run", *FLINK, *words, source=source, store=store)
    assert summary["events"] == len(events)
    assert not differences(Tables.read(store), [event for _, event in events])
    assert run("run", source=source, store=store)["events"] == 0  # all of it is committed
