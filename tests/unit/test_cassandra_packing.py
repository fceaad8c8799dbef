"""What travels together: never more than Cassandra takes without a word."""

from __future__ import annotations

import math
from collections import Counter

import pytest
from cassandra import InvalidRequest, Unauthorized
from cassandra.query import BatchStatement, BatchType, BoundStatement, PreparedStatement
from hypothesis import example, given
from hypothesis import strategies as st

from group_scores.stores.cassandra.limits import Limits, limits_of, read_limits
from group_scores.stores.cassandra.packing import (
    PARTITION_BYTES,
    Lookup,
    Row,
    batch,
    pack_lookups,
    pack_rows,
)
from group_scores.stores.cassandra.wire import Bound

USUAL = Limits()
BATCH_BYTES = USUAL.batch_bytes


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


limits = st.builds(
    Limits, st.sampled_from((0, 1024, BATCH_BYTES, 65_536)), st.integers(1, 20), st.integers(1, 20)
)


@given(rows(), limits)
@example([Row(n, bytes([n]), BATCH_BYTES // 11, []) for n in range(40)], USUAL)
def test_rows(given_rows: list[Row], limits: Limits) -> None:
    groups = list(pack_rows(given_rows, replica, limits))
    assert Counter(row.item for group in groups for row in group) == Counter(
        row.item for row in given_rows
    )
    for group in groups:
        size = sum(row.size for row in group)
        partitions = {row.partition for row in group}
        assert len({replica(row.partition) for row in group}) == 1
        if len(partitions) > 1:
            assert size < limits.batch_bytes
            assert len(partitions) <= limits.batch_partitions
        elif len(group) > 1:
            assert size <= PARTITION_BYTES
    for node in range(3):
        # Two groups that are less than half full would have been one.
        light = [
            group
            for group in groups
            if replica(group[0].partition) == node
            and sum(row.size for row in group) < limits.batch_bytes / 2
            and len({row.partition for row in group}) < limits.batch_partitions
        ]
        assert len(light) <= 1


@pytest.mark.parametrize(
    ("size", "expected"),
    [(BATCH_BYTES // 4, [3] * 4), (100, [10, 2]), (BATCH_BYTES, [1] * 12), (3000, [1] * 12)],
)
def test_small_rows_share_a_batch(size: int, expected: list[int]) -> None:
    groups = pack_rows([Row(n, bytes([3 * n]), size, []) for n in range(12)], replica, USUAL)
    assert sorted(map(len, groups), reverse=True) == expected


def test_rows_of_one_partition_are_one_mutation_however_many() -> None:
    given_rows = [Row(n, b"same", BATCH_BYTES, []) for n in range(60)]
    groups = list(pack_rows(given_rows, replica, USUAL))
    assert len(groups) == math.ceil(60 * BATCH_BYTES / PARTITION_BYTES)


@given(
    st.lists(st.tuples(st.integers(0, 255), st.sampled_from("ab"), st.sampled_from("xy"))), limits
)
def test_lookups(drawn: list[tuple[int, str, str]], limits: Limits) -> None:
    lookups = [
        Lookup(item, bytes([user]), (course.encode(), context.encode()), b"user")
        for item, (user, course, context) in enumerate(drawn)
    ]
    groups = list(pack_lookups(lookups, replica, limits))
    assert sorted(lookup.item for group in groups for lookup in group) == list(range(len(drawn)))
    families: Counter[object] = Counter()
    for group in groups:
        (family,) = {(lookup.family, replica(lookup.partition)) for lookup in group}
        assert len(group) <= limits.read_keys
        families[family] += 1
    wanted = Counter((lookup.family, replica(lookup.partition)) for lookup in lookups)
    for family, groups_of_it in families.items():
        assert groups_of_it == math.ceil(wanted[family] / limits.read_keys)


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
    assert only.fetch_size is None  # in pages, the nodes would read the partitions in turn
    assert isinstance(only, BoundStatement)


def test_values_are_not_in_what_the_driver_prints() -> None:
    statement = bound("secret answer", b"learner")
    assert statement.values == [b"secret answer"]
    statement.prepared_statement.query_string = "INSERT"
    assert "secret" not in str(statement)
    assert "learner" not in repr(statement)


class TestLimits:
    def test_of_a_node_as_it_is_delivered(self) -> None:
        settings = {
            "batch_size_warn_threshold_in_kb": "5",
            "unlogged_batch_across_partitions_warn_threshold": "10",
            "partition_keys_in_select_warn_threshold": "-1",
            "in_select_cartesian_product_warn_threshold": "-1",
            "native_transport_max_frame_size_in_mb": "16",
        }
        assert limits_of(settings) == Limits(5 * 1024, 10, 16, 16 << 20)
        assert limits_of({}) == Limits() == Limits(5 * 1024, 10, 16, None)

    def test_of_a_node_that_is_set_otherwise(self) -> None:
        settings = {
            "batch_size_warn_threshold_in_kb": "2",
            "unlogged_batch_across_partitions_warn_threshold": "3",
            "partition_keys_in_select_warn_threshold": "20",
            "in_select_cartesian_product_warn_threshold": "4",
        }
        assert limits_of(settings) == Limits(2048, 3, 4)
        assert limits_of({"batch_size_warn_threshold_in_kb": "9999"}).batch_bytes == 65_536
        name = "unlogged_batch_across_partitions_warn_threshold"
        assert limits_of({name: "9999"}).batch_partitions == 100

    @pytest.mark.parametrize("value", [None, "", "0", "-1", "5KiB", "null"])
    def test_that_are_off_or_told_in_another_way_are_the_usual(self, value: str | None) -> None:
        settings = dict.fromkeys(
            (
                "batch_size_warn_threshold_in_kb",
                "unlogged_batch_across_partitions_warn_threshold",
                "partition_keys_in_select_warn_threshold",
                "native_transport_max_frame_size_in_mb",
            ),
            value,
        )
        assert limits_of(settings) == Limits()

    @pytest.mark.parametrize("error", [InvalidRequest("no keyspace"), Unauthorized("not yours")])
    def test_of_a_node_that_does_not_tell(self, error: Exception) -> None:
        class Session:
            def execute(self, _: str) -> None:
                raise error

        assert read_limits(Session()) == Limits()
