"""Put many items into few statements, without the cluster paying for it elsewhere.

A statement costs both sides several times what a row in it does. So rows that have a replica in
common travel together: each is still one mutation of its own, and that replica coordinates it as
it would have alone. What is over the cluster's limits goes alone.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator, MutableMapping
from typing import NamedTuple

from cassandra.query import BatchStatement, BatchType, BoundStatement

from group_scores.stores.cassandra.limits import Limits
from group_scores.stores.errors import StoreFault, StoreRefusedError

PARTITION_BYTES = 128 * 1024  # rows of one partition are one mutation: its limit is far above
# What Cassandra counts beside the values as they are bound, rounded up.
_COLUMN_BYTES = 24
_MAP_ENTRY_BYTES = 12
_LIST_ITEM_BYTES = 32


class Row(NamedTuple):
    """The statements that write one row. `item` is the row's place in the caller's list."""

    item: int
    partition: bytes
    size: int
    statements: list[BoundStatement]


class Lookup(NamedTuple):
    """One learner to look up. Those of one `family`, a course and batch, differ in `user`."""

    item: int
    partition: bytes
    family: tuple[bytes, bytes]
    user: bytes


Replica = Callable[[bytes], Hashable]
"""The node that coordinates what is sent about a partition."""


def row_size(values: Iterable[bytes], columns: int, map_entries: int, list_items: int) -> int:
    """Return the bytes that Cassandra counts for a row in a batch, rounded up."""
    return (
        sum(map(len, values))
        + columns * _COLUMN_BYTES
        + map_entries * _MAP_ENTRY_BYTES
        + list_items * _LIST_ITEM_BYTES
    )


def fitting(
    rows: Iterable[Row], limits: Limits, faults: MutableMapping[int, StoreFault]
) -> Iterator[Row]:
    """Yield the rows that a message can hold; of the others the fault is put by their items.

    Of a message that is too large the node skips the rest, and with it what is sent next, at times.
    """
    most = limits.statement_bytes
    for row in rows:
        if most is None or row.size <= most:
            yield row
        else:
            faults[row.item] = StoreRefusedError(
                f"a row of {row.size:,} bytes is more than Cassandra takes in one message "
                f"({most:,}, its native_transport_max_frame_size)"
            )


def pack_rows(rows: Iterable[Row], replica: Replica, limits: Limits) -> Iterator[list[Row]]:
    """Group the rows that go into one batch each."""
    partitions: dict[bytes, list[Row]] = {}
    for row in rows:
        partitions.setdefault(row.partition, []).append(row)
    shared: dict[Hashable, list[tuple[int, list[Row]]]] = {}
    for partition, members in partitions.items():
        for size, chunk in _chunks(members):
            if size < limits.batch_bytes:
                shared.setdefault(replica(partition), []).append((size, chunk))
            else:
                yield chunk
    for chunks in shared.values():
        yield from _filled(chunks, limits)


def _chunks(rows: list[Row]) -> Iterator[tuple[int, list[Row]]]:
    """Divide the rows of one partition."""
    size, chunk = 0, list[Row]()
    for row in rows:
        if chunk and size + row.size > PARTITION_BYTES:
            yield size, chunk
            size, chunk = 0, []
        size += row.size
        chunk.append(row)
    yield size, chunk


def _filled(chunks: list[tuple[int, list[Row]]], limits: Limits) -> Iterator[list[Row]]:
    """Fill up each large one with the smallest that are left."""
    left = deque(sorted(chunks, key=lambda chunk: chunk[0], reverse=True))
    while left:
        size, members = left.popleft()
        partitions = 1
        while (
            left
            and partitions < limits.batch_partitions
            and size + left[-1][0] < limits.batch_bytes
        ):
            more, others = left.pop()
            size += more
            members = members + others
            partitions += 1
        yield members


def batch(rows: list[Row]) -> BoundStatement | BatchStatement:
    """Return the one statement that writes all the rows.

    It is unlogged: a row is atomic in any case, and nothing ties one learner's to another's.
    """
    statements = [statement for row in rows for statement in row.statements]
    if len(statements) == 1:
        return statements[0]
    together = BatchStatement(BatchType.UNLOGGED)
    for statement in statements:
        together.add(statement)
    return together


def pack_lookups(
    lookups: Iterable[Lookup], replica: Replica, limits: Limits
) -> Iterator[list[Lookup]]:
    """Group the lookups that one statement serves: of one course and batch, on one replica."""
    families: dict[tuple[tuple[bytes, bytes], Hashable], list[Lookup]] = {}
    for lookup in lookups:
        families.setdefault((lookup.family, replica(lookup.partition)), []).append(lookup)
    for members in families.values():
        for start in range(0, len(members), limits.read_keys):
            yield members[start : start + limits.read_keys]
