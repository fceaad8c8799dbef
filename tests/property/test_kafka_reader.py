"""The reader over logs with any gaps: every record once, in order, and always an end."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple
from unittest import mock

import kafka.errors as kafka_errors
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kafka import TopicPartition

from group_scores.stores.errors import ServiceUnavailableError
from group_scores.transforms.kafka import reader as reader_module
from group_scores.transforms.kafka.address import KafkaAddress
from group_scores.transforms.kafka.errors import CorruptBatchError
from group_scores.transforms.kafka.inner import Look
from group_scores.transforms.kafka.reader import KafkaReader, OffsetJump

ADDRESS = KafkaAddress.parse("kafka://broker/t")
KEY = TopicPartition("t", 0)


class Row(NamedTuple):
    """What the reader uses of a ConsumerRecord."""

    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None


class FakeConsumer:
    """One partition: `offsets` are those of its records, `end` is one past the last of the log.

    Where no record follows, a consumer either passes over markers (`passes_gaps`) or stays.
    """

    def __init__(self, offsets: list[int], end: int, *, fetch: int, passes_gaps: bool) -> None:
        self.offsets, self.end, self.first = offsets, end, 0
        self.fetch, self.passes_gaps = fetch, passes_gaps
        self.at = -1
        self.paused: set[Any] = set()
        self.polls = 0
        self.before_poll: Callable[[int], None] = lambda _: None

    def assign(self, keys: list[Any]) -> None:
        assert keys == [KEY]

    def seek(self, key: Any, offset: int) -> None:
        self.at = offset

    def pause(self, key: Any) -> None:
        self.paused.add(key)

    def resume(self, key: Any) -> None:
        self.paused.discard(key)

    def beginning_offsets(self, keys: list[Any], timeout_ms: float) -> dict[Any, int]:
        return dict.fromkeys(keys, self.first)

    def end_offsets(self, keys: list[Any], timeout_ms: float) -> dict[Any, int]:
        return dict.fromkeys(keys, self.end)

    def poll(self, timeout_ms: float, max_records: int) -> dict[Any, list[Row]]:
        self.polls += 1
        assert self.polls < 10_000, "it reads for ever"
        self.before_poll(self.polls)
        if KEY in self.paused:
            time.sleep(0.001)
            return {}
        if not self.first <= self.at <= self.end:
            raise kafka_errors.OffsetOutOfRangeError({KEY: self.at})
        ahead = [offset for offset in self.offsets if offset >= self.at][: self.fetch]
        if not ahead:
            time.sleep(0.001)
            self.at = self.end if self.passes_gaps else self.at
            return {}
        self.at = ahead[-1] + 1
        return {KEY: [Row(0, offset, 5, None, b"%d" % offset) for offset in ahead]}

    def delete_before(self, first: int) -> None:
        self.first = first
        self.offsets = [offset for offset in self.offsets if offset >= first]

    def look(self, offset: int) -> Look:
        return Look(any(o >= offset for o in self.offsets), self.end, self.end)

    def close(self, **_: Any) -> None:
        pass


@contextmanager
def reading(consumer: FakeConsumer) -> Iterator[KafkaReader]:
    """A reader on the fake, that asks after the first silent poll and not after seconds."""
    with (
        mock.patch.object(reader_module, "open_consumer", return_value=consumer),
        mock.patch.object(reader_module, "look_at", side_effect=lambda *at: consumer.look(at[2])),
        mock.patch.object(reader_module, "position_of", side_effect=lambda *_: consumer.at),
        mock.patch.object(reader_module, "_SILENCE_S", 0.0),
    ):
        yield KafkaReader(ADDRESS, retry_s=5)


def read_all(reader: KafkaReader, chunks: list[int]) -> list[int]:
    """Read to the end, in polls of these sizes over and over; the offsets as delivered."""
    found: list[int] = []
    for step in range(10_000):
        if reader.finished:
            return found
        limit = chunks[step % len(chunks)]
        records = reader.poll(50, limit)
        assert len(records) <= limit
        found += [record.offset for record in records]
    raise AssertionError("it never finished")


logs = st.lists(st.booleans(), max_size=60).map(
    lambda kept: ([offset for offset, keep in enumerate(kept) if keep], len(kept))
)
chunk_sizes = st.lists(st.integers(1, 9), min_size=1, max_size=4)


@given(log=logs, fetch=st.integers(1, 20), chunks=chunk_sizes, gaps=st.booleans(), data=st.data())
def test_gaps_neither_hang_a_read_nor_lose_a_record(
    log: tuple[list[int], int], fetch: int, chunks: list[int], gaps: bool, data: st.DataObject
) -> None:
    offsets, end = log
    start = data.draw(st.integers(0, end), "start")
    until = data.draw(st.integers(start, end), "until")
    consumer = FakeConsumer(offsets, end, fetch=fetch, passes_gaps=gaps)
    with reading(consumer) as reader:
        reader.assign({0: start}, {0: until})
        assert read_all(reader, chunks) == [o for o in offsets if start <= o < until]
        assert reader.position(0) >= until
        assert reader.take_jumps() == []


@given(log=logs, fetch=st.integers(1, 20), chunks=chunk_sizes, gaps=st.booleans(), data=st.data())
def test_a_read_in_turns_goes_on_exactly_where_it_stood(
    log: tuple[list[int], int], fetch: int, chunks: list[int], gaps: bool, data: st.DataObject
) -> None:
    offsets, end = log
    consumer = FakeConsumer(offsets, end, fetch=fetch, passes_gaps=gaps)
    found: list[int] = []
    position = 0
    with reading(consumer) as reader:
        while position < end:
            # Now and then somebody else had the reader in between, or the turn was repeated.
            if data.draw(st.booleans(), "elsewhere"):
                reader.assign({0: data.draw(st.integers(0, end), "there")}, {0: end})
            reader.assign({0: position}, {0: end})
            records = reader.poll(50, data.draw(st.integers(1, 9), "turn"))
            found += [record.offset for record in records]
            assert reader.position(0) > position or records == []
            position = reader.position(0)
    assert found == offsets


@given(log=logs, fetch=st.integers(1, 5), chunks=chunk_sizes, gaps=st.booleans(), data=st.data())
def test_retention_during_a_read_is_counted_and_stepped_over(
    log: tuple[list[int], int], fetch: int, chunks: list[int], gaps: bool, data: st.DataObject
) -> None:
    offsets, end = log
    first = data.draw(st.integers(0, end), "first offset left")
    when = data.draw(st.integers(1, 6), "before which poll")
    consumer = FakeConsumer(offsets, end, fetch=fetch, passes_gaps=gaps)

    def retention(poll: int) -> None:
        if poll == when:
            consumer.delete_before(first)

    consumer.before_poll = retention
    with reading(consumer) as reader:
        reader.assign({0: 0}, {0: end})
        found = read_all(reader, chunks)
        jumps = reader.take_jumps()
    gone = {o for jump in jumps for o in range(jump.expected, jump.resumed)}
    assert len(jumps) <= 1
    assert all(jump.resumed == first and jump.reason == "deleted" for jump in jumps)
    assert found == [offset for offset in offsets if offset not in gone]


@given(cut=st.integers(0, 18), log_end=st.integers(0, 19))
def test_a_log_that_was_cut_off_ends_a_bounded_read(cut: int, log_end: int) -> None:
    """An unclean election, or the topic made anew: what was to be read is no more."""
    consumer = FakeConsumer(list(range(20)), 20, fetch=3, passes_gaps=False)

    def cut_off(poll: int) -> None:
        if consumer.at >= cut:
            consumer.end = min(consumer.end, log_end)
            consumer.offsets = [o for o in consumer.offsets if o < log_end]

    consumer.before_poll = cut_off
    with reading(consumer) as reader:
        reader.assign({0: 0}, {0: 20})
        found = read_all(reader, [4])
        (jump,) = reader.take_jumps()
    assert jump == OffsetJump(0, found[-1] + 1 if found else 0, 0, "truncated")
    assert found == list(range(len(found)))


def test_an_endless_read_goes_on_after_a_cut_and_waits_at_the_end() -> None:
    consumer = FakeConsumer([0, 1, 2], 3, fetch=9, passes_gaps=False)
    with reading(consumer) as reader:
        reader.assign({0: 0})
        assert [record.offset for record in reader.poll(50, 9)] == [0, 1, 2]
        assert reader.poll(20, 9) == []
        assert not reader.finished
        consumer.offsets, consumer.end = [0, 1], 2
        found = reader.poll(50, 9)
        assert [record.offset for record in found] == [0, 1]
        assert [jump.reason for jump in reader.take_jumps()] == ["truncated"]


def test_waiting_at_the_end_is_no_fault_and_waiting_for_data_is() -> None:
    consumer = FakeConsumer([0], 1, fetch=9, passes_gaps=False)
    with reading(consumer) as reader:
        reader.retry_s = 0.05
        reader.assign({0: 1})
        for _ in range(5):
            assert reader.poll(20, 9) == []
        consumer.end, consumer.offsets = 5, [4]
        consumer.paused.add(KEY)  # nothing comes although there is something
        with pytest.raises(ServiceUnavailableError, match="although there is more to read"):
            read_all(reader, [9])


@pytest.mark.parametrize("error", [kafka_errors.CorruptRecordError("crc"), ValueError("codec")])
def test_a_damaged_batch_is_named_and_never_polled_again(error: Exception) -> None:
    consumer = FakeConsumer([0, 1], 2, fetch=1, passes_gaps=False)

    def damage(poll: int) -> None:
        if poll == 2:
            raise error

    consumer.before_poll = damage
    with reading(consumer) as reader:
        reader.assign({0: 0}, {0: 2})
        assert len(reader.poll(50, 9)) == 1
        with pytest.raises(
            CorruptBatchError, match=r"partition 0 at offset 1: .*damaged.*(crc|codec)"
        ):
            reader.poll(50, 9)
        assert reader.broken
        assert consumer.polls == 2


def test_a_tombstone_and_a_record_without_a_time() -> None:
    consumer = FakeConsumer([0], 1, fetch=1, passes_gaps=False)
    rows = {KEY: [Row(0, 0, -1, b"k", None)]}
    with reading(consumer) as reader, mock.patch.object(consumer, "poll", return_value=rows):
        reader.assign({0: 0}, {0: 1})
        consumer.at = 1
        (record,) = reader.poll(50, 9)
    assert record == (0, 0, -1, b"k", b"")
