"""Snapshots of two unrepaired nodes: what is read is what the cluster answered."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterator
from datetime import UTC
from pathlib import Path
from typing import Any

import pytest
from cassandra import ConsistencyLevel, Unavailable
from cassandra.query import SimpleStatement

from group_scores.pipelines.batch_sources import SnapshotSource
from group_scores.pipelines.sources import parse_source
from group_scores.transforms.snapshot import SnapshotReader
from tests.command_line import succeed
from tests.integration.test_cassandra_nodes import wait_until_agreed, wait_until_known
from tests.servers.cassandra_server import CassandraServer, create_tables

KEYS = {"by_user": "user", "by_course": "course"}
COLUMNS = (
    "user_id, course_id, batch_id, content_id, attempt_id, "
    "last_attempted_on, total_score, total_max_score"
)


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[CassandraServer]]:
    settings: dict[str, object] = {
        "hinted_handoff_enabled": False,
        "storage_compatibility_mode": "NONE",  # else there is no bti, and the nodes differ
    }
    first = CassandraServer(tmp_path_factory.mktemp("n1"), heap="512m", settings=settings).start()
    second = CassandraServer(
        tmp_path_factory.mktemp("n2"),
        heap="512m",
        listen_address="127.0.0.2",
        storage_port=first.storage_port,
        seeds=[first.seed],
        settings={
            **settings,
            "native_transport_port": first.port,
            "auto_bootstrap": False,
            "sstable": {"selected_format": "bti"},
        },
    )
    second.port = first.port
    second.start()
    wait_until_known(first)
    yield [first, second]
    for node in (second, first):
        node.kill()


def statement(draw: random.Random, table: str, ttl: bool) -> str:
    names = ("user_id", "course_id", "batch_id", "content_id", "attempt_id")
    values = [f"{name[0]}{draw.randrange(4)}" for name in names]
    pairs = [f"{name} = '{value}'" for name, value in zip(names, values, strict=True)]
    row = " AND ".join(pairs)
    score = draw.choice(["null", "0.5", "7", "NaN"])
    what = draw.randrange(7 if ttl else 6)
    if what <= 1:
        keys = ", ".join(f"'{value}'" for value in values)
        at = draw.randrange(10**12)
        return f"INSERT INTO {table} ({COLUMNS}) VALUES ({keys}, {at}, {score}, 10)"
    if what == 2:
        return f"UPDATE {table} SET total_score = {score}, grand_total = 'x' WHERE {row}"
    if what == 3:
        column = draw.choice(["total_score, last_attempted_on", ""])
        return f"DELETE {column} FROM {table} WHERE {row}"
    if what == 4:
        return f"DELETE FROM {table} WHERE {' AND '.join(pairs[: draw.choice([3, 4])])}"
    if what == 5:
        partition = pairs[1:2] if table.startswith("by_course") else pairs[:2]
        text = f"DELETE FROM {table} WHERE {' AND '.join(partition)}"
        return text if draw.random() < 0.1 else statement(draw, table, ttl)
    return f"UPDATE {table} USING TTL 1 SET total_score = 9, total_max_score = 9 WHERE {row}"


def write(node: CassandraServer, draw: random.Random, number: int) -> None:
    with node.session() as session:
        for keyspace in KEYS:
            for _ in range(number):
                text = statement(draw, f"{keyspace}.assessment_aggregator", True)
                level = ConsistencyLevel.ONE
                session.execute(SimpleStatement(text, consistency_level=level))


def test_two_nodes_read_as_the_cluster_answered(
    nodes: list[CassandraServer], tmp_path: Path
) -> None:
    draw = random.Random(1)
    with nodes[0].session(alone=True) as session:
        for keyspace, key in KEYS.items():
            create_tables(session, keyspace, attempts_key=key)  # type: ignore[arg-type]
            session.execute(
                f"ALTER KEYSPACE {keyspace} WITH replication = "
                "{'class': 'SimpleStrategy', 'replication_factor': 2}"
            )
        session.execute(
            "ALTER TABLE by_course.assessment_aggregator WITH compression = {'enabled': false}"
        )
    for keyspace in KEYS:
        wait_until_agreed(nodes, keyspace)
    write(nodes[0], draw, 400)
    for node in nodes:
        node.nodetool("flush")
    with nodes[1].down():
        write(nodes[0], draw, 200)
    with nodes[0].down():
        write(nodes[1], draw, 200)
    time.sleep(2)  # every TTL is over
    expected: dict[str, list[Any]] = {}
    for node in nodes:
        node.nodetool("snapshot", "-t", "tag", *KEYS)
    with nodes[0].session() as session:
        for keyspace in KEYS:
            query = f"SELECT {COLUMNS} FROM {keyspace}.assessment_aggregator"
            every = SimpleStatement(query, consistency_level=ConsistencyLevel.ALL)
            expected[keyspace] = [tuple(row) for row in _execute(session, every)]
    for keyspace in KEYS:
        folders = ",".join(
            str(next((node.data / keyspace).glob("assessment_aggregator-*"))) for node in nodes
        )
        address = f"snapshot:{folders}?rf=2&nodes=2"
        source = parse_source(address)
        assert isinstance(source, SnapshotSource)
        source.check(60)
        reader = SnapshotReader(source.address)
        rows = list(reader.read(0, 0))
        reader.close()
        answered = [
            (*row[:5], row[5] and round(row[5].timestamp() * 1000), *row[6:])
            for row in map(_utc, expected[keyspace])
        ]
        assert len(rows) > 50
        assert sorted(map(repr, rows)) == sorted(map(repr, answered))
        live = f"cassandra://{nodes[0].host}:{nodes[0].port}/{keyspace}?consistency=ALL"
        assert _scores(address, tmp_path / f"{keyspace}-files.db") == (
            _scores(live, tmp_path / f"{keyspace}-live.db")
        )


def _scores(source: str, store: Path) -> list[dict[str, Any]]:
    """Aggregate into a new store, twice; return its rows without their times."""
    words = ("--source", source, "--store", f"sqlite:{store}")
    first, again = (json.loads(succeed("run", *words, "--summary", "json").out) for _ in range(2))
    assert first["aggregates_written"] > 0
    assert (again["aggregates_written"], again["aggregates_unchanged"]) == (
        (0, first["aggregates_written"] + first["aggregates_unchanged"])
    )
    assert succeed("verify", *words, "--format", "jsonl").out == ""
    rows = succeed("dump", "--store", f"sqlite:{store}", "--table", "aggregates").out.splitlines()
    return [json.loads(row) | {"agg_last_updated": None} for row in rows]


def _execute(session: Any, statement: SimpleStatement) -> Any:
    deadline = time.monotonic() + 60
    while True:
        try:
            return session.execute(statement)
        except Unavailable:  # the nodes do not see each other yet
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)


def _utc(row: Any) -> Any:
    return (*row[:5], row[5] and row[5].replace(tzinfo=UTC), *row[6:])
