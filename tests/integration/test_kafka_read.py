"""ReadFromKafka on Beam's local runner and a real broker: what is delivered, what is committed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import apache_beam as beam
import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.pipeline_context import PipelineContext
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from kafka import KafkaProducer

from group_scores.scores.record import SourceRecord
from group_scores.stores.errors import AddressError
from group_scores.transforms.kafka import group as group_module
from group_scores.transforms.kafka.address import KafkaAddress
from group_scores.transforms.kafka.group import GroupOffsets
from group_scores.transforms.kafka.read import ReadFromKafka, Turn
from group_scores.transforms.resources import close_shared
from tests.servers.kafka_server import KafkaServer

MakeTopic = Callable[..., str]
HERE = Path(__file__)
ROOT = HERE.parents[2]

seen: list[tuple[SourceRecord, int]] = []
"""What reached the end of a pipeline of this process, with its time in ms."""


class Keep(beam.DoFn):
    """Keep what comes at the end of each bundle, as a store would be written in batches.

    Fails in the bundle that holds one offset; asks before each bundle what is committed.
    """

    def __init__(self, fail_at: int | None = None, watch: KafkaAddress | None = None) -> None:
        self.fail_at, self.watch = fail_at, watch

    def start_bundle(self) -> None:
        self.batch: list[tuple[SourceRecord, int]] = []
        if self.watch is not None:
            committed[len(seen)] = offsets_of(self.watch)

    def process(self, record: SourceRecord, at: Any = beam.DoFn.TimestampParam) -> Iterable[None]:
        self.batch.append((record, at.micros // 1000))
        return ()

    def finish_bundle(self) -> None:
        if self.fail_at in [record.offset for record, _ in self.batch]:
            raise RuntimeError("the store is gone")
        seen.extend(self.batch)


committed: dict[int, dict[int, int | None]] = {}
"""By how many records had reached the end of the pipeline, what was committed then."""


class Append(beam.DoFn):
    """Append partition and offset to a file, slowly, from whatever process."""

    def __init__(self, path: str, pause_s: float) -> None:
        self.path, self.pause_s = path, pause_s

    def process(self, record: SourceRecord) -> None:
        time.sleep(self.pause_s)
        line = f"{record.partition} {record.offset} {os.getpid()}\n"
        handle = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(handle, line.encode())
        os.close(handle)


@pytest.fixture(autouse=True)
def _afresh() -> Iterator[None]:
    seen.clear()
    committed.clear()
    yield
    close_shared()


def parse(kafka: KafkaServer, topic: str, options: str = "") -> KafkaAddress:
    return KafkaAddress.parse(f"kafka://{kafka.bootstrap}/{topic}?group={topic}{options}")


def fill(
    kafka: KafkaServer, topic: str, partitions: int, count: int, padding: int = 0, **record: Any
) -> None:
    producer = KafkaProducer(bootstrap_servers=kafka.bootstrap, linger_ms=20)
    for i in range(count):
        for partition in range(partitions):
            producer.send(topic, b"%d" % i + bytes(padding), partition=partition, **record)
    producer.flush()
    producer.close(timeout=10)


def offsets_of(address: KafkaAddress, partitions: int = 2) -> dict[int, int | None]:
    offsets = GroupOffsets(address)
    try:
        return offsets.committed(range(partitions))
    finally:
        offsets.close()


def run(read: beam.PTransform, keep: beam.DoFn, *options: str) -> dict[str, int]:
    """Run the read into `keep` and return the counters."""
    pipeline = beam.Pipeline(runner=FnApiRunner(), options=PipelineOptions(list(options)))
    _ = pipeline | read | "Keep" >> beam.ParDo(keep)
    result = pipeline.run()
    result.wait_until_finish()
    counters = result.metrics().query()["counters"]
    return {counter.key.metric.name: counter.committed for counter in counters}


def test_everything_once_with_its_time_and_committed_to_the_end(
    kafka: KafkaServer, topic: MakeTopic
) -> None:
    name = topic(3)  # the last one stays empty
    then_ms = int(time.time() * 1000) - 60_000
    fill(kafka, name, 2, 250, timestamp_ms=then_ms)
    address = parse(kafka, name)
    counters = run(ReadFromKafka(address, turn=Turn(max_records=100)), Keep())
    assert sorted((r.partition, r.offset, r.value) for r, _ in seen) == [
        (partition, i, b"%d" % i) for partition in range(2) for i in range(250)
    ]
    assert {(r.topic, at) for r, at in seen} == {(name, then_ms)}
    assert offsets_of(address, 3) == {0: 250, 1: 250, 2: 0}
    assert counters["kafka_records"] == 500
    assert counters["kafka_bytes"] == sum(len(r.value) for r, _ in seen)
    assert counters.get("kafka_offsets_lost", 0) == 0
    assert counters.get("kafka_commit_failures", 0) == 0
    # A second run has nothing to do, a third one takes what was lost to retention for what it is.
    seen.clear()
    run(ReadFromKafka(address), Keep())
    assert seen == []
    fill(kafka, name, 1, 10)
    kafka.delete_records(name, {0: 253})
    counters = run(ReadFromKafka(address), Keep())
    assert sorted(r.offset for r, _ in seen) == list(range(253, 260))
    assert counters["kafka_offsets_lost"] == 3
    assert offsets_of(address, 3) == {0: 260, 1: 250, 2: 0}


@pytest.mark.parametrize(
    "turn", [Turn(max_records=30), Turn(max_bytes=100), Turn(max_seconds=0.0)], ids=str
)
def test_offsets_are_committed_as_it_goes_and_never_before_the_work_is_done(
    kafka: KafkaServer, topic: MakeTopic, turn: Turn
) -> None:
    name = topic(1)
    fill(kafka, name, 1, 150)
    address = parse(kafka, name)
    run(ReadFromKafka(address, turn=turn), Keep(watch=address))
    assert [record.offset for record, _ in seen] == list(range(150))
    assert len(committed) >= 2
    for done, offsets in committed.items():
        assert (offsets[0] or 0) == done
    assert offsets_of(address, 1) == {0: 150}


def test_a_run_that_fails_commits_nothing_of_its_last_turn(
    kafka: KafkaServer, topic: MakeTopic
) -> None:
    name = topic(1)
    fill(kafka, name, 1, 100)
    address = parse(kafka, name)
    turn = Turn(max_records=20)
    with pytest.raises(RuntimeError, match="the store is gone"):
        run(ReadFromKafka(address, turn=turn), Keep(fail_at=50))
    assert offsets_of(address, 1) == {0: 40}
    run(ReadFromKafka(address, turn=turn), Keep())
    assert sorted({record.offset for record, _ in seen}) == list(range(100))
    assert Counter(record.offset for record, _ in seen)[39] == 1
    assert offsets_of(address, 1) == {0: 100}


@pytest.mark.parametrize(
    ("options", "expected"), [("&start=earliest", [0, 1, 2, 3]), ("&start=latest", [])]
)
def test_a_start_that_is_named_still_commits(
    kafka: KafkaServer, topic: MakeTopic, options: str, expected: list[int]
) -> None:
    name = topic(1)
    fill(kafka, name, 1, 4)
    address = parse(kafka, name, options)
    offsets = GroupOffsets(address)
    offsets.commit({0: 2})
    run(ReadFromKafka(address), Keep())
    assert [record.offset for record, _ in seen] == expected
    assert offsets.committed([0]) == {0: 4}
    offsets.close()


def test_nothing_stands_between_the_read_and_what_follows(kafka: KafkaServer) -> None:
    """The local runner finalizes each stage by itself: a second stage would be too late."""
    pipeline = beam.Pipeline(runner=FnApiRunner())
    address = KafkaAddress.parse(f"kafka://{kafka.bootstrap}/t")
    _ = pipeline | ReadFromKafka(address) | "Keep" >> beam.ParDo(Keep())
    _, stages = FnApiRunner().create_stages(pipeline.to_runner_api())
    reading = [stage for stage in stages if "Records/Process" in stage.name]
    assert len(reading) == 1
    names = [transform.unique_name for transform in reading[0].transforms]
    assert any(name.startswith("Keep") for name in names)
    urns = [transform.spec.urn for transform in reading[0].transforms]
    assert "beam:runner:sink:v1" not in urns
    components = pipeline.to_runner_api().components
    context = PipelineContext(components)
    coders = [
        context.coders[components.pcollections[output].coder_id]
        for transform in components.transforms.values()
        for output in transform.outputs.values()
        if transform.unique_name.startswith("ReadFromKafka/")
    ]
    assert len(coders) >= 3
    assert all(coder.is_deterministic() for coder in coders)


def test_two_worker_processes_deliver_and_commit_all(
    kafka: KafkaServer, topic: MakeTopic, tmp_path: Path
) -> None:
    """Beam's local runner loses what is handed back to it there: nothing may be handed back."""
    name = topic(4)
    fill(kafka, name, 4, 300)
    address = parse(kafka, name)
    path = tmp_path / "seen"
    read = ReadFromKafka(address, turn=Turn(max_records=50))
    workers = ("--direct_running_mode=multi_processing", "--direct_num_workers=2")
    counters = run(read, Append(str(path), 0), *workers)
    lines = [line.split() for line in path.read_text().splitlines()]
    assert {(int(p), int(o)) for p, o, _ in lines} == {(p, o) for p in range(4) for o in range(300)}
    assert len({pid for _, _, pid in lines}) == 2
    assert counters["kafka_records"] == 1200
    assert offsets_of(address, 4) == dict.fromkeys(range(4), 300)


def test_a_run_that_is_killed_goes_on_where_it_was(
    kafka: KafkaServer, topic: MakeTopic, tmp_path: Path
) -> None:
    name = topic(2)
    fill(kafka, name, 2, 600)
    address = parse(kafka, name)
    path = tmp_path / "seen"
    text = f"kafka://{kafka.bootstrap}/{name}?group={name}"

    def start() -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "tests.integration.test_kafka_read", text, str(path)]
        return subprocess.Popen(command, cwd=ROOT)

    def lines() -> list[tuple[int, int]]:
        rows = path.read_text().splitlines() if path.exists() else []
        return [(int(row.split()[0]), int(row.split()[1])) for row in rows]

    first = start()
    deadline = time.monotonic() + 90
    while len(lines()) < 500:
        assert first.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.01)
    first.send_signal(signal.SIGKILL)
    first.wait()
    before = lines()
    at_kill = {p: offset or 0 for p, offset in offsets_of(address).items()}
    assert 0 < sum(at_kill.values()) <= len(before)
    for partition, offset in at_kill.items():  # what is committed was written
        assert {(partition, o) for o in range(offset)} <= set(before)
    assert start().wait(90) == 0
    after = lines()
    assert set(after) == {(p, o) for p in range(2) for o in range(600)}
    assert len(after) - len(before) == 1200 - sum(at_kill.values())
    assert offsets_of(address) == {0: 600, 1: 600}


def test_a_broker_that_restarts_in_the_middle_is_waited_for(
    kafka: KafkaServer, topic: MakeTopic
) -> None:
    name = topic(1)
    fill(kafka, name, 1, 120, padding=50_000)  # many times what is fetched ahead
    address = parse(kafka, name)
    downs = threading.Thread(target=lambda: _restart_when(kafka, 30))

    class Slow(Keep):
        def process(self, record: SourceRecord, at: Any = beam.DoFn.TimestampParam) -> Any:
            time.sleep(0.005)
            return super().process(record, at)

    downs.start()
    counters = run(ReadFromKafka(address, turn=Turn(max_records=10)), Slow())
    downs.join()
    assert {record.offset for record, _ in seen} == set(range(120))
    assert offsets_of(address, 1) == {0: 120}
    assert counters["kafka_records"] >= 120


def _restart_when(kafka: KafkaServer, count: int) -> None:
    while len(seen) < count:
        time.sleep(0.01)
    with kafka.down(kill=True):
        pass


def test_a_commit_that_fails_is_counted_and_does_not_stop_the_run(
    kafka: KafkaServer, topic: MakeTopic, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = topic(1)
    fill(kafka, name, 1, 60)
    address = parse(kafka, name)
    failures = iter([True, True])
    commit = GroupOffsets.commit

    def flaky(self: GroupOffsets, offsets: dict[int, int], timeout_s: float = 10) -> None:
        if next(failures, False):
            raise AddressError("user 'x' has no right to group 'y'")
        commit(self, offsets, timeout_s)

    monkeypatch.setattr(group_module.GroupOffsets, "commit", flaky)
    counters = run(ReadFromKafka(address, turn=Turn(max_records=20)), Keep())
    assert [record.offset for record, _ in seen] == list(range(60))
    assert counters["kafka_commit_failures"] == 2
    assert offsets_of(address, 1) == {0: 60}


def test_times_that_beam_cannot_tell_are_no_fault(kafka: KafkaServer, topic: MakeTopic) -> None:
    name = topic(
        1,
        retention_ms=-1,
        message_timestamp_before_max_ms=2**63 - 1,
        message_timestamp_after_max_ms=2**63 - 1,
    )
    for stamp in (2**62, 0, int(time.time() * 1000) + 10**10):
        fill(kafka, name, 1, 1, timestamp_ms=stamp)
    run(ReadFromKafka(parse(kafka, name), turn=Turn(max_records=1)), Keep())
    assert [record.offset for record, _ in seen] == [0, 1, 2]
    assert [at for _, at in seen][1] == 0


def test_a_topic_that_is_not_there_fails_the_run_with_its_name(kafka: KafkaServer) -> None:
    address = KafkaAddress.parse(f"kafka://{kafka.bootstrap}/not-there")
    with pytest.raises(AddressError, match="'not-there' does not exist"):
        run(ReadFromKafka(address), Keep())


def test_what_cannot_be_read() -> None:
    with pytest.raises(AddressError, match="until=latest"):
        ReadFromKafka(KafkaAddress.parse("kafka://broker/t?until=forever"))
    with pytest.raises(AddressError, match="sink"):
        ReadFromKafka(KafkaAddress.parse("kafka://broker/t", role="sink"))


if __name__ == "__main__":
    source = KafkaAddress.parse(sys.argv[1])
    run(ReadFromKafka(source, turn=Turn(max_records=40)), Append(sys.argv[2], 0.002))
