"""The main job on real input: a real broker, a real Cassandra, and the rows recomputed."""

from __future__ import annotations

import contextlib
import itertools
import json
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import pytest

from group_scores.runners.simulate import Simulation, simulate
from tests import naive
from tests.integration.pipeline_runs import (
    Tables,
    arguments,
    consume,
    dead_letter_differences,
    differences,
    produce,
    run,
)
from tests.servers.cassandra_server import CassandraServer
from tests.servers.kafka_server import KafkaServer

Topic = Callable[..., str]
Keyspace = Callable[..., str]


class Place:
    """A topic with its failed topic, and a keyspace."""

    def __init__(
        self, cassandra: CassandraServer, kafka: KafkaServer, topic: Topic, keyspace: str
    ) -> None:
        self.bootstrap = kafka.bootstrap
        self.topic = topic(partitions=4)
        self.failed = kafka.create_topic(f"{self.topic}.failed", 1)
        self.cassandra = cassandra
        self.keyspace = keyspace
        self.source = f"kafka://{kafka.bootstrap}/{self.topic}"
        self.store = f"cassandra://{cassandra.host}:{cassandra.port}/{keyspace}"

    def produce(self, simulation: Simulation) -> list[bytes]:
        events = list(simulate(simulation))
        produce(self.bootstrap, self.topic, events)
        return [event for _, event in events]

    def letters(self) -> list[bytes]:
        return consume(self.bootstrap, self.failed)

    @contextlib.contextmanager
    def running(self, **options: object) -> Iterator[subprocess.Popen[str]]:
        """A run that has written its first rows and has most of its work before it."""
        command = arguments("run", source=self.source, store=self.store, **options)
        query = f"SELECT user_id FROM {self.keyspace}.assessment_aggregator LIMIT 1"
        with (
            self.cassandra.session() as session,
            subprocess.Popen(
                command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
            ) as process,
        ):
            while not list(session.execute(query)):
                assert process.poll() is None
                time.sleep(0.02)
            yield process


@pytest.fixture
def place(
    cassandra: CassandraServer, kafka: KafkaServer, topic: Topic, keyspace: Keyspace
) -> Place:
    return Place(cassandra, kafka, topic, keyspace())


def test_kafka_to_cassandra_equals_the_recomputation(place: Place) -> None:
    """20,000 events, shuffled, a tenth redelivered, a twentieth invalid, every codec."""
    messages = place.produce(Simulation(20_000, 11, redeliver=0.1, shuffle=0.3, invalid=0.05))
    summary = run("run", source=place.source, store=place.store)
    tables = Tables.read(place.store)
    assert not differences(tables, messages)
    assert not dead_letter_differences(place.letters(), messages)
    refused = sum(naive.refusal(message) is not None for message in messages)
    assert refused > 800
    assert summary["events"] == len(messages)
    assert summary["dead_letters"] == refused
    assert summary["attempts_written"] >= len(tables.attempts) > 15_000
    assert summary["fields_ignored"] > 0

    # Everything is committed: another run of the group finds nothing.
    again = run("run", source=place.source, store=place.store)
    assert again["events"] == 0


def test_two_worker_processes_give_the_same_rows(place: Place) -> None:
    messages = place.produce(Simulation(3_000, 12, redeliver=0.2, shuffle=0.3, invalid=0.02))
    parallel = ("--direct_running_mode", "multi_processing", "--direct_num_workers", "2")
    summary = run("run", *parallel, source=place.source, store=place.store)
    assert summary["events"] == len(messages)
    tables = Tables.read(place.store)
    assert not differences(tables, messages)
    assert not dead_letter_differences(place.letters(), messages)

    # And the same events once more, from the start, leave the same attempts, untouched.
    again = run("run", source=f"{place.source}?start=earliest", store=place.store)
    assert (again["events"], again["attempts_written"]) == (len(messages), 0)
    after = Tables.read(place.store)
    assert after.attempts == tables.attempts
    assert not differences(after, messages)


def _killed_runs(place: Place, messages: list[bytes], kills: int, most_s: float) -> None:
    """Start the run and kill it at a random moment, `kills` times; then let it come to its end.

    A run that was too quick to be killed does not count: it is given more to do, in less time.
    """
    draw = Random(kills)
    for seed in itertools.count(1000):
        if not kills:
            break
        command = arguments("run", source=place.source, store=place.store)
        with subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as process:
            # From before the first record is read to the middle of the work.
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(draw.uniform(2.0, most_s))
            process.kill()
            if process.wait() == -signal.SIGKILL:
                kills -= 1
                continue
        assert process.returncode == 0
        most_s = max(2.0, 0.8 * most_s)
        messages += place.produce(Simulation(2_000, seed, redeliver=0.1, invalid=0.02))
    run("run", source=place.source, store=place.store)


def _check_after_kills(place: Place, messages: list[bytes]) -> None:
    assert not differences(Tables.read(place.store), messages)
    # A dead letter may come again after a kill, and none is lost.
    once = dead_letter_differences(set(place.letters()), set(messages))
    assert not [line for line in once if "missing" in line]


def test_killed_at_random_moments(place: Place) -> None:
    messages = place.produce(Simulation(8_000, 13, redeliver=0.1, shuffle=0.2, invalid=0.02))
    _killed_runs(place, messages, kills=3, most_s=7.0)
    _check_after_kills(place, messages)


@pytest.mark.soak
def test_killed_at_many_random_moments(place: Place) -> None:
    messages = place.produce(Simulation(50_000, 14, redeliver=0.1, shuffle=0.2, invalid=0.02))
    _killed_runs(place, messages, kills=25, most_s=40.0)
    _check_after_kills(place, messages)


@pytest.mark.parametrize("seconds", [6, pytest.param(20, marks=pytest.mark.soak)])
def test_cassandra_that_goes_away_is_waited_for(place: Place, seconds: int) -> None:
    messages = place.produce(Simulation(6_000, 15, invalid=0.01))
    with place.running() as process:
        with place.cassandra.down():
            time.sleep(seconds)
            assert process.poll() is None, "the run did not wait"
        _, said = process.communicate(timeout=200)
    assert process.returncode == 0, said
    assert "waiting for up to 120 s" in said
    assert not differences(Tables.read(place.store), messages)


def test_a_store_that_stays_away_fails_the_run_in_one_line(place: Place) -> None:
    place.produce(Simulation(6_000, 16))
    with place.running(store_retry_s=1) as process, place.cassandra.paused():
        _, said = process.communicate(timeout=120)
    assert process.returncode == 1, said
    errors = [line for line in said.splitlines() if line.startswith("group-scores: ")]
    assert len(errors) == 1, said
    assert "Cassandra" in errors[0]
    assert "Traceback" not in said
    # What was not written was not committed: the next run does the rest.
    messages = consume(place.bootstrap, place.topic)
    run("run", source=place.source, store=place.store)
    assert not differences(Tables.read(place.store), messages)


def test_a_corrected_dead_letter_is_replayed(place: Place, tmp_path: Path) -> None:
    place.produce(Simulation(200, 17, invalid=0.3))
    run("run", source=place.source, store=place.store)
    letters = [json.loads(letter) for letter in place.letters()]
    reasons = [letter["metadata"]["validation_error"] for letter in letters]
    mended = [
        letter | {"userId": "learner-of-a-mended-event"}
        for letter, reason in zip(letters, reasons, strict=True)
        if reason == "userId: is missing"
    ]
    assert mended
    corrected = tmp_path / "corrected.jsonl"
    corrected.write_text("".join(json.dumps(letter) + "\n" for letter in mended))
    summary = run("replay", **{"from": corrected}, store=place.store)
    assert (summary["events"], summary["dead_letters"]) == (len(mended), 0)
    mine = [
        row
        for row in Tables.read(place.store).aggregates
        if row["user_id"] == "learner-of-a-mended-event"
    ]
    contents = {key for row in mine for key in row["agg"] if key.startswith("score:")}
    assert contents == {f"score:{letter['contentId']}" for letter in mended if letter["events"]}

    # As it stands, it is refused again for the same reason, and does not grow.
    whole = tmp_path / "letters.jsonl"
    whole.write_bytes(b"".join(letter + b"\n" for letter in place.letters()))
    again = tmp_path / "again.jsonl"
    summary = run("replay", **{"from": whole}, store=place.store, dead_letter=again)
    assert summary["dead_letters"] == len(letters)
    assert sorted(again.read_bytes().splitlines()) == sorted(place.letters())
