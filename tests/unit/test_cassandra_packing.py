"""What travels together: never more than Cassandra takes without a word."""

from __future__ import annotations

import math
from collections import Counter

import pytest
from cassandra.query import BatchStatement, BatchType, BoundStatement, PreparedStatement
from hypothesis import given
from hypothesis import strategies as st

from group_scores.stores.cassandra.packing import (
    BATCH_BYTES,
    BATCH_PARTITIONS,
    PARTITION_BYTES,
    READ_KEYS,
    Lookup,
    Row,
    batch,
    pack_lookups,
    pack_rows,
)
from group_scores.stores.cassandra.wire import Bound


def replica(partition: bytes) -> int:
    return partition[0] % 3


sizes = st.one_of(
    st.integers(1, BATCH_BYTES // 3),
    st.integers(1, 2 * BATCH_BYTES),
    st.integers(PARTITION_BYTES // 3, 2 * PARTITION_BYTES),
)


@st.composite
def rows(draw: st.DrawFn) -> list[Row]:
    drawn = draw(st.lists(st.tuples(st.integers(0, 40), sizes), max_size=60))
    return [Row(item, bytes([part]), size, []) for item, (part, size) in enumerate(drawn)]


@given(rows())
def test_rows(given_rows: list[Row]) -> None:
    groups = list(pack_rows(given_rows, replica))
    assert Counter(row.item for group in groups for row in group) == Counter(
        row.item for row in given_rows
    )
    for group in groups:
        size = sum(row.size for row in group)
        partitions = {row.partition for row in group}
        assert len({replica(row.partition) for row in group}) == 1
        if len(partitions) > 1:
            assert size < BATCH_BYTES
            assert len(partitions) <= BATCH_PARTITIONS
        elif len(group) > 1:
            assert size <= PARTITION_BYTES
    for node in range(3):
        # Two groups that are less than half full would have been one.
        light = [
            group
            for group in groups
            if replica(group[0].partition) == node
            and sum(row.size for row in group) < BATCH_BYTES / 2
            and len({row.partition for row in group}) < BATCH_PARTITIONS / 2
        ]
        assert len(light) <= 1


@pytest.mark.parametrize(
    ("size", "expected"),
    [(BATCH_BYTES // 4, [3] * 4), (100, [10, 2]), (BATCH_BYTES, [1] * 12), (3000, [1] * 12)],
)
def test_small_rows_share_a_batch(size: int, expected: list[int]) -> None:
    groups = pack_rows([Row(n, bytes([3 * n]), size, []) for n in range(12)], replica)
    assert sorted(map(len, groups), reverse=True) == expected


def test_rows_of_one_partition_are_one_mutation_however_many() -> None:
    given_rows = [Row(n, b"same", BATCH_BYTES, []) for n in range(60)]
    groups = list(pack_rows(given_rows, replica))
    assert len(groups) == math.ceil(60 * BATCH_BYTES / PARTITION_BYTES)


@given(st.lists(st.tuples(st.integers(0, 255), st.sampled_from("ab"), st.sampled_from("xy"))))
def test_lookups(drawn: list[tuple[int, str, str]]) -> None:
    lookups = [
        Lookup(item, bytes([user]), (course.encode(), context.encode()), b"user")
        for item, (user, course, context) in enumerate(drawn)
    ]
    groups = list(pack_lookups(lookups, replica))
    assert sorted(lookup.item for group in groups for lookup in group) == list(range(len(drawn)))
    families: Counter[object] = Counter()
    for group in groups:
        (family,) = {(lookup.family, replica(lookup.partition)) for lookup in group}
        assert len(group) <= READ_KEYS
        families[family] += 1
    wanted = Counter((lookup.family, replica(lookup.partition)) for lookup in lookups)
    for family, groups_of_it in families.items():
        assert groups_of_it == math.ceil(wanted[family] / READ_KEYS)


def bound(name: str, partition: bytes) -> Bound:
    prepared = PreparedStatement([], name.encode(), [0], name, "ks", 4, None, None)
    statement = Bound(prepared, [name.encode()], partition)
    statement.keyspace = "ks"
    return statement


def test_batch_is_unlogged_and_goes_to_the_first_partition() -> None:
    first, created, second = bound("insert", b"1"), bound("created", b"1"), bound("insert", b"2")
    together = batch([Row(0, b"1", 1, [first, created]), Row(1, b"2", 1, [second])])
    assert isinstance(together, BatchStatement)
    assert together.batch_type is BatchType.UNLOGGED
    assert together.routing_key == b"1"
    sent = together._statements_and_parameters
    assert [(query_id, values) for _, query_id, values in sent] == [
        (b"insert", [b"insert"]),
        (b"created", [b"created"]),
        (b"insert", [b"insert"]),
    ]


def test_one_statement_is_no_batch() -> None:
    only = bound("insert", b"1")
    assert batch([Row(0, b"1", 1, [only])]) is only
    assert isinstance(only, BoundStatement)


def test_values_are_not_in_what_the_driver_prints() -> None:
    statement = bound("insert", b"learner")
    statement.values = [b"secret answer"]
    assert "secret" not in str(statement)
    assert "learner" not in repr(statement)
