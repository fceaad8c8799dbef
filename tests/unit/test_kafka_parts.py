"""The small parts of the Kafka source and sink that need no broker."""

from __future__ import annotations

import importlib.util
import logging
import pickle
import time
from collections import deque
from typing import Any

import apache_beam as beam
import kafka.errors as kafka_errors
import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.transforms.window import GlobalWindow
from apache_beam.utils.timestamp import MIN_TIMESTAMP, Timestamp

from group_scores.stores.errors import AddressError, GroupScoresError, ServiceUnavailableError
from group_scores.transforms.kafka import client
from group_scores.transforms.kafka.address import KafkaAddress
from group_scores.transforms.kafka.client import explain, hushed, patiently, warn_without_crc32c
from group_scores.transforms.kafka.errors import CorruptBatchError, MessageTooLargeError
from group_scores.transforms.kafka.pool import ReaderPool
from group_scores.transforms.kafka.read import (
    ReadFromKafka,
    _advance,
    event_time_ms,
)
from group_scores.transforms.kafka.reader import KafkaReader, KafkaRecord
from group_scores.transforms.residuals import loses_what_is_handed_back

ADDRESS = KafkaAddress.parse("kafka://broker/t")


@pytest.mark.parametrize(
    ("options", "loses"),
    [
        ([], False),
        (["--direct_num_workers=1", "--direct_running_mode=multi_processing"], False),
        (["--direct_num_workers=2", "--direct_running_mode=multi_processing"], True),
        (["--direct_num_workers=0"], True),  # as many as there are cores
    ],
)
def test_nothing_is_handed_back_to_a_runner_that_loses_it(options: list[str], loses: bool) -> None:
    pipeline = beam.Pipeline(options=PipelineOptions(options))
    assert loses_what_is_handed_back(pipeline) is loses


def test_the_transform_travels_without_the_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAFKA_PASSWORD", "hush-hush")
    address = KafkaAddress.parse("kafka://broker/t?username=ann")
    address.client_config()
    pipeline = beam.Pipeline()
    _ = pipeline | ReadFromKafka(address)
    assert b"hush-hush" not in pipeline.to_runner_api().SerializeToString()


@pytest.mark.parametrize("time_ms", [0, 1, 1_700_000_000_000])
def test_a_time_is_taken_as_it_is(time_ms: int) -> None:
    assert event_time_ms(time_ms) == time_ms


def test_a_time_is_what_beam_can_tell() -> None:
    latest = Timestamp(micros=event_time_ms(2**63 - 1) * 1000)
    assert MIN_TIMESTAMP < latest <= GlobalWindow().max_timestamp()
    assert abs(event_time_ms(-1) - time.time() * 1000) < 5_000


class Estimator:
    def __init__(self) -> None:
        self.at = MIN_TIMESTAMP

    def current_watermark(self) -> Timestamp:
        return self.at

    def set_watermark(self, at: Timestamp) -> None:
        assert at > self.at
        self.at = at


def test_the_watermark_neither_goes_back_nor_into_the_future() -> None:
    estimator = Estimator()
    _advance(estimator, 2_000)
    _advance(estimator, 1_000)
    assert estimator.at == Timestamp(2)
    _advance(estimator, 2**50)
    assert abs(float(estimator.at) - time.time()) < 5


@pytest.mark.parametrize(
    ("error", "kind", "says"),
    [
        (kafka_errors.TopicAuthorizationFailedError({"t"}), AddressError, "no right to topic 't'"),
        (kafka_errors.GroupAuthorizationFailedError("g"), AddressError, "group 'group-scores'"),
        (kafka_errors.CommitFailedError("x"), AddressError, "write another group="),
        (kafka_errors.KafkaTimeoutError("x"), ServiceUnavailableError, "check that it runs"),
        (kafka_errors.KafkaConnectionError("x"), ServiceUnavailableError, "broker:9092"),
        (kafka_errors.NotLeaderForPartitionError(), ServiceUnavailableError, "broker:9092 failed"),
        (RuntimeError("closed"), ServiceUnavailableError, "closed"),
    ],
)
def test_errors_say_what_is_to_be_done(
    error: Exception, kind: type[GroupScoresError], says: str
) -> None:
    explained = explain(error, ADDRESS)
    assert type(explained) is kind
    assert says in str(explained)


def test_errors_travel_between_processes() -> None:
    too_large = pickle.loads(pickle.dumps(MessageTooLargeError("5 is too large", limit=4)))
    assert (str(too_large), too_large.limit) == ("5 is too large", 4)
    assert str(pickle.loads(pickle.dumps(CorruptBatchError("at 5")))) == "at 5"


def test_patience_is_bounded_and_only_for_what_may_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(client.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(client.time, "sleep", lambda s: clock.__setitem__(0, clock[0] + s))
    attempts: list[float] = []

    def attempt() -> str:
        attempts.append(clock[0])
        if len(attempts) < 4:
            raise ServiceUnavailableError("away")
        return "back"

    assert patiently(attempt, retry_s=10, what="it") == "back"
    attempts.clear()
    began = clock[0]

    def fail(error: Exception) -> None:
        attempts.append(clock[0])
        raise error

    with pytest.raises(ServiceUnavailableError):
        patiently(lambda: fail(ServiceUnavailableError("away")), retry_s=10, what="it")
    assert 5 < attempts[-1] - began <= 10
    attempts.clear()
    with pytest.raises(AddressError):
        patiently(lambda: fail(AddressError("no")), retry_s=10, what="it")
    assert len(attempts) == 1


def test_a_slow_checksum_is_said_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    warn_without_crc32c.cache_clear()
    warn_without_crc32c()
    assert caplog.text == ""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    warn_without_crc32c.cache_clear()
    warn_without_crc32c()
    warn_without_crc32c()
    assert caplog.text.count("pip install crc32c") == 1
    warn_without_crc32c.cache_clear()


def test_the_last_of_several_checks_lets_the_clients_lines_out_again() -> None:
    logger = logging.getLogger("kafka")
    before = logger.level
    first, second = hushed(), hushed()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert logger.level > logging.CRITICAL
    second.__exit__(None, None, None)
    assert logger.level == before


class Reader:
    """A reader that connects to nothing."""

    def __init__(self, _: KafkaAddress) -> None:
        self.partition, self.at, self.until = -1, -1, -1
        self.broken = self.closed = False
        self.idle_since = self.retry_s = 0.0

    def assign(self, starts: dict[int, int], until: dict[int, int]) -> None:
        ((self.partition, self.at),) = starts.items()
        self.until = until[self.partition]

    def stands_at(self, partition: int, offset: int) -> bool:
        return (self.partition, self.at) == (partition, offset)

    @property
    def finished(self) -> bool:
        return self.at >= self.until

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def pool(monkeypatch: pytest.MonkeyPatch) -> ReaderPool:
    monkeypatch.setattr("group_scores.transforms.kafka.pool.KafkaReader", Reader)
    return ReaderPool(ADDRESS)


def test_a_reader_comes_back_to_where_it_stands(pool: ReaderPool) -> None:
    with pool.lease(0, 0, 100, 1.0) as first, pool.lease(1, 0, 100, 1.0) as second:
        assert first is not second
        first.at, second.at = 10, 20
    with pool.lease(1, 20, 100, 1.0) as again:
        assert again is second
    with pool.lease(0, 10, 100, 1.0) as again:
        assert again is first
        again.at = 100
    with pool.lease(2, 0, 100, 1.0) as reused:  # what is read to its end is free for another
        assert reused is first


def test_the_lag_is_that_of_all_partitions(pool: ReaderPool) -> None:
    assert pool.note_lag({0: 5}) == 5
    assert pool.note_lag({1: 7}) == 12
    assert pool.note_lag({0: 1}) == 8


def test_readers_do_not_pile_up(pool: ReaderPool) -> None:
    used: list[Any] = []
    for partition in range(20):
        with pool.lease(partition, 0, 100, 1.0) as reader:
            used.append(reader)
    assert sum(not reader.closed for reader in set(used)) <= 8
    with pool.lease(19, 0, 100, 1.0) as broken:
        broken.broken = True
    assert broken.closed
    with pool.lease(18, 0, 100, 1.0) as lent:
        pool.close()
        assert not lent.closed
    assert all(reader.closed for reader in used)


def test_a_partition_that_always_has_more_holds_up_no_other() -> None:
    reader = KafkaReader(ADDRESS)
    for partition, records in ((0, 1_000), (1, 3), (2, 3)):
        reader._buffers[partition] = deque(
            KafkaRecord(partition, offset, 0, None, b"x") for offset in range(records)
        )
    taken = [record for _ in range(3) for record in reader._take(10, 1_000)]
    assert {record.partition for record in taken} == {0, 1, 2}
    for partition in range(3):  # each in its order
        offsets = [record.offset for record in taken if record.partition == partition]
        assert offsets == list(range(len(offsets)))
