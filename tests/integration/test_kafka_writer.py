"""The writer and the sink on a real broker: acknowledged, compressed where needed, or an error."""

from __future__ import annotations

import os
import pickle
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from kafka import KafkaConsumer, TopicPartition

from group_scores.stores.errors import AddressError, ServiceUnavailableError
from group_scores.transforms.kafka import writer as writer_module
from group_scores.transforms.kafka.address import KafkaAddress
from group_scores.transforms.kafka.check import check_topic
from group_scores.transforms.kafka.errors import MessageTooLargeError
from group_scores.transforms.kafka.sink import KafkaSink
from group_scores.transforms.kafka.writer import KafkaWriter
from group_scores.transforms.resources import close_shared
from tests.servers.kafka_server import KafkaServer

MakeTopic = Callable[..., str]
LIMIT = 20_000


@pytest.fixture(autouse=True)
def _afresh() -> Iterator[None]:
    yield
    close_shared()


def sink(kafka: KafkaServer, topic: str) -> KafkaAddress:
    return KafkaAddress.parse(f"kafka://{kafka.bootstrap}/{topic}", role="sink")


def written(kafka: KafkaServer, topic: str, partitions: int = 1) -> list[Any]:
    """All records of the topic, aborted ones included."""
    consumer = KafkaConsumer(
        bootstrap_servers=kafka.bootstrap, group_id=None, max_partition_fetch_bytes=8 << 20
    )
    keys = [TopicPartition(topic, partition) for partition in range(partitions)]
    consumer.assign(keys)
    for key in keys:
        consumer.seek(key, 0)
    ends = consumer.end_offsets(keys)
    found: list[Any] = []
    while any(consumer.position(key) < end for key, end in ends.items()):
        for records in consumer.poll(5000).values():
            found += records
    consumer.close()
    return found


def test_what_is_flushed_is_there_and_keys_keep_their_partition(
    kafka: KafkaServer, topic: MakeTopic
) -> None:
    name = topic(3)
    writer = KafkaWriter(sink(kafka, name))
    for i in range(3000):
        writer.send(b"%d" % i, b"user-%d" % (i % 10))
    writer.flush()
    records = written(kafka, name, 3)
    assert sorted(int(record.value) for record in records) == list(range(3000))
    places: dict[bytes, set[int]] = {}
    for record in records:
        places.setdefault(record.key, set()).add(record.partition)
    assert len(places) == 10
    assert all(len(place) == 1 for place in places.values())


def test_writers_of_a_process_share_a_producer(kafka: KafkaServer, topic: MakeTopic) -> None:
    address = sink(kafka, topic())
    before = threading.active_count()
    for i in range(5):
        writer = KafkaWriter(address)
        writer.send(b"%d" % i)
        writer.flush()
    assert threading.active_count() - before <= 2  # the producer's sender and its IO


def test_a_large_message_is_compressed_and_one_that_cannot_be_names_the_limit(
    kafka: KafkaServer, topic: MakeTopic
) -> None:
    name = topic(max_message_bytes=LIMIT)
    writer = KafkaWriter(sink(kafka, name))
    writer.send(b"small")
    writer.send(b"x" * (5 * LIMIT))
    with pytest.raises(MessageTooLargeError, match=name) as refused:
        writer.send(os.urandom(2 * LIMIT), b"key")
    limit = refused.value.limit
    assert LIMIT - 1000 < limit < LIMIT
    assert pickle.loads(pickle.dumps(refused.value)).limit == limit
    writer.send(os.urandom(limit), b"key")  # what it says is true
    writer.send(b"last")
    writer.flush()
    sizes = sorted(len(record.value) for record in written(kafka, name))
    assert sizes == [4, 5, limit, 5 * LIMIT]


def test_a_limit_that_may_not_be_seen_is_found_by_trying(
    kafka: KafkaServer, topic: MakeTopic, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer_module, "message_limit", lambda _: None)
    name = topic(max_message_bytes=LIMIT)
    messages = [b"first", os.urandom(3 * LIMIT), b"y" * (3 * LIMIT), os.urandom(LIMIT // 2)]
    cuts: list[tuple[int, int]] = []

    def shorten(index: int, limit: int) -> bytes:
        cuts.append((index, limit))
        return messages[index][:limit]

    KafkaSink(sink(kafka, name)).write(messages, shorten)
    values = {record.value for record in written(kafka, name)}
    assert {messages[0], messages[2], messages[3]} <= values
    (cut,) = values - set(messages)
    assert messages[1].startswith(cut)
    assert len(cut) > LIMIT // 3
    assert {index for index, _ in cuts} == {1}


def test_the_sink_shortens_what_does_not_fit(kafka: KafkaServer, topic: MakeTopic) -> None:
    name = topic(max_message_bytes=LIMIT)
    messages = [b"a", os.urandom(2 * LIMIT), b"b"]
    KafkaSink(sink(kafka, name)).write(messages, lambda index, limit: messages[index][:limit])
    values = [record.value for record in written(kafka, name)]
    assert {b"a", b"b"} < set(values)
    assert len(values) == 3
    with pytest.raises(MessageTooLargeError):
        KafkaSink(sink(kafka, name)).write(messages)


def test_a_broker_that_is_paused_gets_all_of_it_later(kafka: KafkaServer, topic: MakeTopic) -> None:
    name = topic()
    writer = KafkaWriter(sink(kafka, name), retry_s=30)
    writer.send(b"0")
    writer.flush()
    with kafka.paused():
        writer.send(b"1")
        threading.Timer(1.5, kafka.resume).start()
        began = time.monotonic()
        writer.flush()
        assert time.monotonic() - began > 1
    assert [record.value for record in written(kafka, name)] == [b"0", b"1"]


def test_a_producer_that_fails_is_replaced(kafka: KafkaServer, topic: MakeTopic) -> None:
    name = topic()
    writer = KafkaWriter(sink(kafka, name), retry_s=20)
    writer.send(b"0")
    writer._producers.discard("plain")  # as another thread does when the producer has failed
    writer.send(b"1")
    writer.flush()
    assert {record.value for record in written(kafka, name)} == {b"0", b"1"}


def test_what_is_not_acknowledged_is_an_error(kafka: KafkaServer, topic: MakeTopic) -> None:
    name = topic()
    writer = KafkaWriter(sink(kafka, name), retry_s=1)
    writer.send(b"0")
    writer.flush()
    with kafka.paused():
        writer.send(b"1")
        with pytest.raises(ServiceUnavailableError, match=f"1 messages to .*{name} could not be"):
            writer.flush()
    writer.flush()  # forgotten: the bundle is done again
    nowhere = KafkaAddress.parse("kafka://127.0.0.1:1/t", role="sink")
    with pytest.raises(ServiceUnavailableError, match=r"127\.0\.0\.1:1"):
        KafkaSink(nowhere, retry_s=0.5).write([b"x"])


def test_a_sink_that_does_not_exist_is_not_made(kafka: KafkaServer, topic: MakeTopic) -> None:
    name = topic()
    assert check_topic(sink(kafka, name)) == {0: (0, 0)}
    # Not with other topics' names one letter away, as those of the tests before are.
    with pytest.raises(AddressError, match=f"did you mean '{name}'"):
        check_topic(sink(kafka, f"{name}x"))
    with kafka.admin() as admin:
        assert f"{name}x" not in admin.list_topics()
