"""The plain reader on a real broker: codecs, gaps of every kind, retention, outages, damage."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from kafka import KafkaProducer, TopicPartition
from kafka.structs import OffsetAndMetadata

from group_scores.stores.errors import AddressError, ServiceUnavailableError
from group_scores.transforms.kafka import reader as reader_module
from group_scores.transforms.kafka.address import KafkaAddress
from group_scores.transforms.kafka.client import open_consumer
from group_scores.transforms.kafka.errors import CorruptBatchError
from group_scores.transforms.kafka.group import Committer, GroupOffsets
from group_scores.transforms.kafka.inner import look_at
from group_scores.transforms.kafka.reader import KafkaReader, KafkaRecord
from group_scores.transforms.kafka.topic import KafkaTopic, resolve
from tests.servers.kafka_server import KafkaServer

MakeTopic = Callable[..., str]
THEN_MS = int(time.time() * 1000) - 3_600_000  # not so old that retention takes it
CODECS = (None, "gzip", "snappy", "lz4", "zstd")


def address(kafka: KafkaServer, topic: str, options: str = "") -> KafkaAddress:
    return KafkaAddress.parse(f"kafka://{kafka.bootstrap}/{topic}?group={topic}-group{options}")


def read_range(where: KafkaAddress) -> tuple[dict[int, tuple[int, int]], int]:
    topic = KafkaTopic(where)
    try:
        return resolve(topic)
    finally:
        topic.close()


@contextmanager
def producing(kafka: KafkaServer, **settings: Any) -> Iterator[KafkaProducer]:
    producer = KafkaProducer(bootstrap_servers=kafka.bootstrap, **settings)
    yield producer
    producer.close(timeout=10)


def send(kafka: KafkaServer, topic: str, *values: bytes | None, **settings: Any) -> None:
    """Write the values to partition 0, each a batch of its own where `settings` say so."""
    with producing(kafka, **settings) as producer:
        for value in values:
            producer.send(topic, value, key=b"k", partition=0)
        producer.flush()


def drain(reader: KafkaReader, limit_s: float = 20) -> list[KafkaRecord]:
    """Read what was assigned to its end."""
    deadline = time.monotonic() + limit_s
    found: list[KafkaRecord] = []
    while not reader.finished:
        assert time.monotonic() < deadline, f"no end after {len(found)} records"
        found += reader.poll(500, 100)
    return found


@pytest.fixture
def readers() -> Iterator[Callable[..., KafkaReader]]:
    made: list[KafkaReader] = []

    def make(where: KafkaAddress, **options: Any) -> KafkaReader:
        made.append(KafkaReader(where, **options))
        return made[-1]

    yield make
    for one in made:
        one.close()


Readers = Callable[..., KafkaReader]


def test_every_codec_and_partitions_of_one_reader(
    kafka: KafkaServer, topic: MakeTopic, readers: Readers
) -> None:
    name = topic(len(CODECS) + 1)  # the last one stays empty
    large = bytes(range(256)) * 6000  # 1.5 MB, over what one fetch is limited to
    for number, codec in enumerate(CODECS):
        with producing(kafka, compression_type=codec, max_request_size=2 << 20) as producer:
            for i in range(300):
                value = large if codec and i == 150 else b"%d of %d" % (i, number)
                at = {"partition": number, "timestamp_ms": THEN_MS + i}
                producer.send(name, value, key=b"k%d" % i, **at)
    ranges, lost = read_range(address(kafka, name))
    assert ranges == {**dict.fromkeys(range(len(CODECS)), (0, 300)), len(CODECS): (0, 0)}
    assert lost == 0
    reader = readers(address(kafka, name))
    starts = {partition: start for partition, (start, _) in ranges.items()}
    reader.assign(starts, {partition: end for partition, (_, end) in ranges.items()})
    found = drain(reader)
    for number, codec in enumerate(CODECS):
        records = [record for record in found if record.partition == number]
        assert [record.offset for record in records] == list(range(300))
        assert records[7] == (number, 7, THEN_MS + 7, b"k7", b"7 of %d" % number)
        assert records[150].value == (large if codec else b"150 of 0")
    assert set(reader.lag().values()) == {0}


def test_gaps_of_compaction_at_the_start_in_the_middle_and_at_the_end(
    kafka: KafkaServer, topic: MakeTopic, readers: Readers
) -> None:
    name = topic(
        cleanup_policy="compact",
        segment_bytes=2000,
        min_cleanable_dirty_ratio=0.001,
        max_compaction_lag_ms=1,
        delete_retention_ms=1,
    )
    with producing(kafka, batch_size=0, enable_idempotence=False) as producer:
        # Of each key the last one stays: offsets 0 to 9 go, 10 and 11 stay, 12 to 29 go.
        keys = ["a", "b"] * 5 + ["x", "y"] + ["c", "d"] * 9 + ["a", "b", "c", "d"]
        for number, key in enumerate([*keys, *["fill"] * 30]):
            producer.send(name, b"%d" % number + b"." * 150, key=key.encode(), partition=0)
            producer.flush()
    reader = readers(address(kafka, name))
    deadline = time.monotonic() + 20
    found: list[int] = []
    while 5 in found or 25 in found or not found:
        assert time.monotonic() < deadline, f"not compacted: {found}"
        time.sleep(0.2)
        reader.assign({0: 1}, {0: 34})  # elsewhere first, so that nothing is kept
        reader.assign({0: 0}, {0: 34})
        found = [record.offset for record in drain(reader)]
    assert found == [10, 11, 30, 31, 32, 33]
    reader.assign({0: 3}, {0: 26})  # begins and ends in a gap
    assert [record.offset for record in drain(reader)] == [10, 11]
    assert reader.position(0) >= 26
    assert reader.take_jumps() == []


def test_committed_and_aborted_transactions_and_their_markers(
    kafka: KafkaServer, topic: MakeTopic, readers: Readers
) -> None:
    name = topic()
    with producing(kafka, transactional_id=f"{name}-writer") as producer:
        producer.init_transactions()

        def transaction(*values: bytes) -> None:
            producer.begin_transaction()
            for value in values:
                producer.send(name, value, partition=0)
            producer.flush()

        transaction(b"0", b"1")
        producer.commit_transaction()  # marker at 2
        transaction(b"3", b"4", b"5")
        producer.abort_transaction()  # marker at 6
        transaction(b"7")
        producer.commit_transaction()  # marker at 8: the last thing in the log
        ranges, _ = read_range(address(kafka, name))
        assert ranges == {0: (0, 9)}
        reader = readers(address(kafka, name))
        reader.assign({0: 0}, {0: 9})
        found = drain(reader)
        assert [(r.offset, r.value) for r in found] == [(0, b"0"), (1, b"1"), (7, b"7")]
        assert reader.position(0) == 9

        transaction(b"9")
        send(kafka, name, b"10")  # committed itself, and behind one that is open
        ranges, _ = read_range(address(kafka, name))
        assert ranges == {0: (0, 9)}, "what lies behind an open transaction comes later"
        reader.assign({0: 9})
        assert reader.poll(700, 10) == []
        producer.abort_transaction()
        (record,) = reader.poll(5000, 10)
        assert (record.offset, record.value) == (10, b"10")


def test_one_look_tells_a_gap_from_a_delay(kafka: KafkaServer, topic: MakeTopic) -> None:
    """The private way into kafka-python that the end of a hang depends on."""
    name = topic()
    with producing(kafka, transactional_id=f"{name}-writer") as producer:
        producer.init_transactions()
        producer.begin_transaction()
        producer.send(name, b"0", partition=0)
        producer.commit_transaction()  # marker at 1
        producer.begin_transaction()
        producer.send(name, b"2", partition=0).get(10)
        consumer = open_consumer(address(kafka, name))
        key = TopicPartition(name, 0)
        consumer.assign([key])
        consumer.seek(key, 0)
        assert consumer.poll(5000)
        assert look_at(consumer, key, 0) == (True, 2, 3)
        assert look_at(consumer, key, 2) == (False, 2, 3)
        assert look_at(consumer, key, 99) is None
        producer.abort_transaction()
        consumer.close()


def test_retention_before_a_read_is_counted_against_what_was_committed(
    kafka: KafkaServer, topic: MakeTopic, caplog: pytest.LogCaptureFixture
) -> None:
    name = topic(2)
    where = address(kafka, name)
    send(kafka, name, *[b"%d" % i for i in range(10)])
    GroupOffsets(where).commit({0: 2})
    kafka.delete_records(name, {0: 6})
    with caplog.at_level(logging.WARNING, "group_scores"):
        assert read_range(where) == ({0: (6, 10), 1: (0, 0)}, 4)
    (line,) = [r.getMessage() for r in caplog.records if r.name.startswith("group_scores")]
    assert "offsets 2 to 5" in line
    assert "partition 0" in line


def test_retention_during_a_read_goes_on_at_the_first_offset_left(
    kafka: KafkaServer, topic: MakeTopic, readers: Readers, caplog: pytest.LogCaptureFixture
) -> None:
    name = topic()
    send(kafka, name, *[b"%d" % i for i in range(20)])
    reader = readers(address(kafka, name))
    reader.assign({0: 0}, {0: 20})
    assert [record.offset for record in reader.poll(5000, 3)] == [0, 1, 2]
    kafka.delete_records(name, {0: 15})
    with caplog.at_level(logging.WARNING, "group_scores"):
        reader.assign({0: 4}, {0: 20})  # another place: what was fetched ahead is of no use
        assert [record.offset for record in drain(reader)] == [15, 16, 17, 18, 19]
    assert reader.take_jumps() == [(0, 4, 15, "deleted")]
    (line,) = [r.getMessage() for r in caplog.records if r.name.startswith("group_scores")]
    assert "offset 4 is gone (retention" in line
    kafka.delete_records(name, {0: 20})
    reader.assign({0: 16}, {0: 20})
    assert drain(reader) == []
    assert reader.take_jumps() == [(0, 16, 20, "deleted")]


def test_a_commit_behind_the_end_starts_over(kafka: KafkaServer, topic: MakeTopic) -> None:
    """The topic was made anew, or its log cut off."""
    name = topic()
    where = address(kafka, name)
    send(kafka, name, b"0", b"1")
    GroupOffsets(where).commit({0: 50})
    assert read_range(where) == ({0: (0, 2)}, 0)


@pytest.mark.parametrize(
    ("options", "start"),
    [
        ("", 3),
        ("&start=earliest", 0),
        ("&start=latest", 6),
        (f"&start={THEN_MS + 4}", 4),
        (f"&start={THEN_MS + 99}", 6),
    ],
    ids=["committed", "earliest", "latest", "a time", "a later time"],
)
def test_where_a_read_starts(
    kafka: KafkaServer, topic: MakeTopic, options: str, start: int
) -> None:
    name = topic(2)
    where = address(kafka, name, options)
    with producing(kafka) as producer:
        for i in range(6):
            producer.send(name, b"", partition=0, timestamp_ms=THEN_MS + i)
    GroupOffsets(where).commit({0: 3})
    assert read_range(where) == ({0: (start, 6), 1: (0, 0)}, 0)


def test_commits_move_forward_only_and_fail_aloud(
    kafka: KafkaServer, topic: MakeTopic, caplog: pytest.LogCaptureFixture
) -> None:
    name = topic()
    where = address(kafka, name)
    offsets = GroupOffsets(where)
    assert offsets.committed([0]) == {0: None}
    first, second = Committer(where), Committer(where)
    assert first.commit(0, 5)
    assert second.commit(0, 4)  # it has to look: it is another process
    assert offsets.committed([0]) == {0: 5}
    assert second.commit(0, 7)
    assert first.commit(0, 6)
    assert offsets.committed([0]) == {0: 7}
    nowhere = KafkaAddress.parse(f"kafka://127.0.0.1:1/{name}")
    failing = Committer(nowhere, retry_s=0.6)
    began = time.monotonic()
    with caplog.at_level(logging.WARNING, "group_scores"):
        assert not failing.commit(0, 9)
    assert time.monotonic() - began < 5
    assert failing.take_failures() == 1
    assert failing.take_failures() == 0
    assert "offset 9 of" in caplog.text
    for one in (offsets, first, second, failing):
        one.close()


def test_a_broker_that_is_paused_is_waited_for(
    kafka: KafkaServer, topic: MakeTopic, readers: Readers
) -> None:
    name = topic()
    send(kafka, name, *[b"%d" % i for i in range(20)], batch_size=0)
    reader = readers(address(kafka, name), retry_s=30)
    reader.assign({0: 0}, {0: 20})
    found = reader.poll(5000, 3)
    reader.assign({0: 10}, {0: 20})
    with kafka.paused():
        threading.Timer(4, kafka.resume).start()
        began = time.monotonic()
        found = drain(reader)
    assert time.monotonic() - began >= 3.5
    assert [record.offset for record in found] == list(range(10, 20))


def test_a_broker_that_stays_away_is_given_up(
    kafka: KafkaServer, topic: MakeTopic, readers: Readers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader_module, "_SILENCE_S", 0.5)
    monkeypatch.setattr(reader_module, "_ASK_TIMEOUT_MS", 500)
    name = topic()
    send(kafka, name, b"0")
    reader = readers(address(kafka, name), retry_s=1.5)
    reader.assign({0: 0}, {0: 1})
    assert len(drain(reader)) == 1
    with kafka.paused():
        reader.assign({0: 0}, {0: 1})
        with pytest.raises(ServiceUnavailableError, match="there is more to read"):
            drain(reader)
    reader.assign({0: 0}, {0: 1})
    assert len(drain(reader)) == 1


def test_a_damaged_batch_is_an_error_and_no_hang(
    kafka: KafkaServer, topic: MakeTopic, readers: Readers
) -> None:
    name = topic()
    send(kafka, name, b"first", batch_size=0)
    send(kafka, name, b"precious", batch_size=0)
    (segment,) = (kafka.folder / "data" / f"{name}-0").glob("*.log")
    data = segment.read_bytes()
    with segment.open("r+b") as file:  # in place: the broker has it open
        file.seek(data.index(b"precious"))
        file.write(b"PRECIOUS")
    reader = readers(address(kafka, name))
    reader.assign({0: 0}, {0: 2})
    assert [record.value for record in reader.poll(5000, 10)] == [b"first"]
    with pytest.raises(CorruptBatchError, match=rf"{name} partition 0 at offset 1: .*damaged"):
        drain(reader)


def test_a_tombstone_is_an_empty_value(
    kafka: KafkaServer, topic: MakeTopic, readers: Readers
) -> None:
    name = topic()
    send(kafka, name, None, b"")
    reader = readers(address(kafka, name))
    reader.assign({0: 0}, {0: 2})
    assert [(record.key, record.value) for record in drain(reader)] == [(b"k", b""), (b"k", b"")]


def test_looking_for_a_topic_does_not_make_it(kafka: KafkaServer, topic: MakeTopic) -> None:
    """kafka-python 3.0 drops the option that forbids it; most brokers would make the topic."""
    with pytest.raises(AddressError, match="'no-such-topic' does not exist"):
        KafkaTopic(address(kafka, "no-such-topic"), retry_s=0).partitions()
    consumer = open_consumer(address(kafka, topic()))
    request = consumer._manager.cluster.metadata_request()
    assert request.allow_auto_topic_creation is False
    consumer.close()


def test_what_a_group_committed_elsewhere_is_understood(
    kafka: KafkaServer, topic: MakeTopic
) -> None:
    """A commit that lies in a transaction that is still open is no commit behind the end."""
    name = topic()
    where = address(kafka, name)
    with producing(kafka, transactional_id=f"{name}-writer") as producer:
        producer.init_transactions()
        producer.begin_transaction()
        for _ in range(4):
            producer.send(name, b"x", partition=0).get(10)
        consumer = open_consumer(where, group=where.group)
        consumer.commit({TopicPartition(name, 0): OffsetAndMetadata(3)})
        consumer.close()
        assert read_range(where) == ({0: (3, 3)}, 0)
        producer.commit_transaction()
    assert read_range(where) == ({0: (3, 5)}, 0)
