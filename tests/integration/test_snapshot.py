"""Snapshots of nodes that differ: what is read is what the cluster answered, cell by cell."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from tests.integration import snapshot_cases as cases
from tests.integration.snapshot_tables import Tables, rows_of, tables_on
from tests.servers.cassandra_pair import Nodes
from tests.servers.cassandra_server import CassandraServer

_checks = list(HealthCheck)
_quick = (Phase.explicit, Phase.reuse, Phase.generate)  # an example takes seconds


@pytest.fixture(scope="module")
def one_node(cassandra: CassandraServer, cassandra_session: Any) -> Iterator[Tables]:
    """The format of Cassandra 4, which 5 writes until it is told that all nodes are upgraded."""
    nodes = Nodes(cassandra)
    with tables_on(nodes, {"nb"}) as tables:
        yield tables
    nodes.close()
    for keyspace in cases.SHAPES:
        cassandra_session.execute(f"DROP KEYSPACE {keyspace}")


_shapes = pytest.mark.parametrize(
    "shapes",
    [("snap_user", "snap_course"), ("snap_more", "snap_less")],
    ids=["deployed", "altered"],
)


@_shapes
@settings(max_examples=2, suppress_health_check=_checks, phases=_quick)
@given(cases.few_phases)
def test_two_nodes_read_as_the_cluster_answered(
    two_nodes: Tables, shapes: tuple[str, ...], phases: list[cases.Phase]
) -> None:
    two_nodes.check(shapes, phases)


def test_what_has_expired_on_one_node_is_a_deletion_to_the_other(two_nodes: Tables) -> None:
    """Of one time it wins, though within a node the cell that lives longer would."""
    key = ("u", "c", "b", "ct", "a")
    lives = cases.Step("ttl", key, 2, 3, "1")
    expires = cases.Step("ttl", key, 1, 3, "1")
    ends = ("flush", "flush")
    both = [cases.Phase(1, (lives,), ends), cases.Phase(0, (expires,), ends)]
    two_nodes.check(("snap_user",), both)
    two_nodes.check(("snap_user",), [cases.Phase(1, (one,), ends) for one in (lives, expires)])


@_shapes
@settings(max_examples=1, suppress_health_check=_checks, phases=_quick)
@given(cases.few_phases)
def test_one_node_reads_as_it_answered(
    one_node: Tables, shapes: tuple[str, ...], phases: list[cases.Phase]
) -> None:
    one_node.check(shapes, phases)


@pytest.mark.soak
@_shapes
@settings(max_examples=100, suppress_health_check=_checks)
@given(cases.phases)
def test_two_nodes_read_as_the_cluster_answered_at_length(
    two_nodes: Tables, shapes: tuple[str, ...], phases: list[cases.Phase]
) -> None:
    two_nodes.check(shapes, phases)


@pytest.mark.soak
@_shapes
@settings(max_examples=50, suppress_health_check=_checks)
@given(cases.phases)
def test_one_node_reads_as_it_answered_at_length(
    one_node: Tables, shapes: tuple[str, ...], phases: list[cases.Phase]
) -> None:
    one_node.check(shapes, phases)


@pytest.mark.parametrize("again", [False, True])
def test_a_cell_of_a_column_that_was_dropped_does_not_make_a_row_live(
    one_node: Tables, again: bool
) -> None:
    """A header still names the column; the schema beside it knows better."""
    session, keyspace, tag = one_node.sessions[0], "snap_user", f"dropped{again}"
    table = f"{keyspace}.{cases.TABLE}"
    row = cases.SHAPES[keyspace].where(5, (tag, "c", "b", "ct", "a"))
    session.execute(f"ALTER TABLE {table} ADD {tag} text")
    session.execute(f"UPDATE {table} SET {tag} = 'x' WHERE {row}")
    one_node.nodes.flush(0, keyspace)
    session.execute(f"ALTER TABLE {table} DROP {tag}")
    if again:
        session.execute(f"ALTER TABLE {table} ADD {tag} text")
    assert not [found for found in one_node.answer(keyspace) if found[0] == tag]
    one_node.nodes.snapshot(tag, keyspace)
    assert not [found for found in one_node.read(tag, keyspace) if found[0] == tag]


@pytest.mark.parametrize("keyspace", ["snap_user", "snap_course"])
def test_without_a_schema_the_files_tell_the_key(
    one_node: Tables, keyspace: str, tmp_path: Path
) -> None:
    shape = cases.SHAPES[keyspace]
    row = shape.where(5, ("bare u", "bare c", "b", "ct", "a"))
    one_node.sessions[0].execute(f"UPDATE {keyspace}.{cases.TABLE} SET total_score = 2 WHERE {row}")
    one_node.nodes.snapshot("bare", keyspace)
    (folder,) = one_node.nodes.snapshot_folders("bare", keyspace, cases.TABLE)
    ignored = shutil.ignore_patterns("schema.cql")
    shutil.copytree(folder, tmp_path / "bare", ignore=ignored)
    found = rows_of(f"snapshot:{tmp_path / 'bare'}?rf=1&nodes=1")
    assert ("bare u", "bare c", "b", "ct", "a", None, 2.0, None) in found
