"""The endless read's function, called as a runner calls it, on a real broker."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import msgspec
import pytest
from kafka import KafkaProducer

from group_scores.transforms.kafka.address import KafkaAddress
from group_scores.transforms.kafka.group import GroupOffsets
from group_scores.transforms.kafka.stream import Call, _State, _StreamFn
from group_scores.transforms.resources import close_shared
from tests.servers.kafka_server import KafkaServer

PARTITIONS = 3


class _Cell:
    """A runner's state of one key, and its timer."""

    def __init__(self, state: _State) -> None:
        self.value: bytes | None = msgspec.msgpack.encode(state)
        self.times: list[object] = []

    def read(self) -> bytes | None:
        return self.value

    def write(self, value: bytes) -> None:
        self.value = value

    def set(self, time: object) -> None:
        self.times.append(time)

    def clear(self) -> None:
        self.value = None
        self.times.clear()

    def offsets(self) -> dict[int, int]:
        assert self.value is not None
        return msgspec.msgpack.decode(self.value, type=_State).offsets


@pytest.fixture
def address(kafka: KafkaServer, topic: Callable[..., str]) -> Iterator[KafkaAddress]:
    """A topic with ten records in its first partitions, none in the last."""
    name = topic(partitions=PARTITIONS)
    producer = KafkaProducer(bootstrap_servers=kafka.bootstrap)
    for partition in range(PARTITIONS - 1):
        for _ in range(10):
            producer.send(name, b"{}", partition=partition)
    producer.close()
    yield KafkaAddress.parse(f"kafka://{kafka.bootstrap}/{name}?until=forever")
    close_shared()


def committed(address: KafkaAddress) -> dict[int, int | None]:
    offsets = GroupOffsets(address)
    try:
        return offsets.committed(range(PARTITIONS))
    finally:
        offsets.close()


def read(stream: _StreamFn, cell: _Cell, number: int) -> None:
    """Read so many in one bundle, in as many calls as it takes."""
    found = 0
    while found < number:
        found += len(list(stream.read(cell, cell)))
    assert found == number


def test_what_was_read_is_committed_by_the_bundle_that_follows(address: KafkaAddress) -> None:
    cell = _Cell(_State(0, 1, {}))
    stream = _StreamFn(address, Call(), 10.0)
    stream.start_bundle()
    read(stream, cell, 20)
    assert cell.offsets() == {0: 10, 1: 10, 2: 0}
    assert cell.times
    assert set(committed(address).values()) == {None}
    stream.start_bundle()
    assert committed(address) == {0: 10, 1: 10, 2: 0}


def test_what_a_checkpoint_says_is_committed_where_nothing_comes_any_more(
    address: KafkaAddress,
) -> None:
    """The worker that had read it was killed after the checkpoint, and before its commit."""
    cell = _Cell(_State(0, 1, {0: 10, 1: 10, 2: 0}))
    stream = _StreamFn(address, Call(), 10.0)
    stream.start_bundle()
    assert not list(stream.read(cell, cell))
    stream.start_bundle()
    assert committed(address) == {0: 10, 1: 10, 2: 0}


def test_a_bundle_that_follows_never_commits_back(address: KafkaAddress) -> None:
    """As after a restore from a checkpoint that is older than the last commit."""
    offsets = GroupOffsets(address)
    offsets.commit({0: 10})
    offsets.close()
    cell = _Cell(_State(0, 1, {0: 4, 1: 10, 2: 0}))
    stream = _StreamFn(address, Call(max_records=2), 10.0)
    stream.start_bundle()
    read(stream, cell, 2)
    stream.start_bundle()
    assert committed(address)[0] == 10


def test_what_is_drained_reads_no_more(address: KafkaAddress) -> None:
    """Also where a call was under way, whose timer the end has not taken."""
    cell = _Cell(_State(0, 1, {}))
    stream = _StreamFn(address, Call(), 10.0)
    stream.start_bundle()
    read(stream, cell, 20)
    stream.end(cell, cell)
    assert not list(stream.read(cell, cell))
    assert not cell.times
    stream.start_bundle()
    assert committed(address) == {0: 10, 1: 10, 2: 0}
