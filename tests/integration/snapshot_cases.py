"""What is done to the attempts on two nodes, drawn; and the tables of every shape it is done to."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Literal

from cassandra import ConsistencyLevel, Unavailable
from cassandra.query import SimpleStatement
from hypothesis import strategies as st

from tests.servers.cassandra_pair import Nodes
from tests.servers.cassandra_server import create_attempts

Names = tuple[str, ...]
TABLE = "assessment_aggregator"
KEY = ("user_id", "course_id", "batch_id", "content_id", "attempt_id")
COLUMNS = ", ".join((*KEY, "last_attempted_on", "total_score", "total_max_score"))
TTL_S = 1
TTL_OVER_S = 2.2  # whole seconds count, and a snapshot's time is taken a second before it


@dataclass(frozen=True)
class Shape:
    """A table of attempts: its primary key's kind, and what `ALTER TABLE` makes of it."""

    key: Literal["user", "course"]
    alter: tuple[str, ...] = ()
    others: tuple[str, ...] = ("grand_total = 'x'", "updated_on = 7", "question = [{id: 'q'}]")

    def where(self, depth: int, key: tuple[str, ...]) -> str:
        """The first `depth` columns of the table's key, as a condition."""
        named = dict(zip(KEY, key, strict=True))
        order = KEY if self.key == "user" else ("course_id", "batch_id", "user_id", *KEY[3:])
        return " AND ".join(f"{name} = {text(named[name])}" for name in order[:depth])

    @property
    def partition(self) -> int:
        """How many columns the partition's key has."""
        return 2 if self.key == "user" else 1

    def next_column(self, depth: int) -> int:
        """The place in KEY of the column after the first `depth` of the table's key."""
        return depth if self.key == "user" else (1, 2, 0, 3, 4)[depth]


SHAPES = {
    "snap_user": Shape("user"),
    "snap_course": Shape("course", ("WITH compression = {'enabled': false}",)),
    "snap_more": Shape(
        "user",
        (
            "ADD (fixed text static, tags set<text>, props map<text, text>, parts blob)",
            "WITH compression = {'class': 'ZstdCompressor', 'chunk_length_in_kb': 4}",
        ),
        ("tags = {'a', 'b'}", "props = {'k': 'v'}", "parts = 0x00", "fixed = 'f'"),
    ),
    "snap_less": Shape(
        "course",
        (
            "DROP (created_on, updated_on, grand_total, question)",
            "WITH compression = {'class': 'DeflateCompressor'} AND gc_grace_seconds = 0",
        ),
        ("total_max_score = 3",),
    ),
}


@dataclass(frozen=True)
class Step:
    """One statement: `kind` of it, on `key`, at the time `at_us` (None: now)."""

    kind: str
    key: tuple[str, ...]
    number: int
    at_us: int | None
    score: str

    def cql(self, keyspace: str, shape: Shape, tag: str) -> str:
        """The statement; `tag` sets the keys of one example apart from those of others."""
        table, key = f"{keyspace}.{TABLE}", (tag + self.key[0], tag + self.key[1], *self.key[2:])
        row = shape.where(5, key)
        times = [f"TIMESTAMP {self.at_us}"] if self.at_us else []
        if self.kind == "insert":
            values = ", ".join((*map(text, key), str(self.number * 10**9), self.score, "10"))
            return f"INSERT INTO {table} ({COLUMNS}) VALUES ({values}){using(times)}"
        if self.kind == "ttl":
            times = [*times, f"TTL {TTL_S if self.number % 2 else 10_000}"]
            return (
                f"UPDATE {table}{using(times)} SET total_score = 9, last_attempted_on = 5 "
                f"WHERE {row}"
            )
        if self.kind == "update":
            return f"UPDATE {table}{using(times)} SET total_score = {self.score} WHERE {row}"
        if self.kind == "other":
            other = shape.others[self.number % len(shape.others)]
            where = shape.where(2, key) if other.startswith("fixed") else row
            return f"UPDATE {table}{using(times)} SET {other} WHERE {where}"
        return f"DELETE {self._what(shape, key, table)}".replace("USING", using(times))

    def _what(self, shape: Shape, key: tuple[str, ...], table: str) -> str:
        if self.kind == "delete cells":
            columns = ("total_score", "total_score, last_attempted_on", "total_max_score")
            return f"{columns[self.number % 3]} FROM {table}USING WHERE {shape.where(5, key)}"
        if self.kind == "delete row":
            return f"FROM {table}USING WHERE {shape.where(5, key)}"
        if self.kind == "delete prefix":
            depth = shape.partition + self.number % (5 - shape.partition)
            return f"FROM {table}USING WHERE {shape.where(depth, key)}"
        assert self.kind == "delete slice"
        depth = max(shape.partition, 2 + self.number % 3)
        place = shape.next_column(depth)
        sign = (">", "<=", ">=", "<")[self.number % 4]
        where = f"{shape.where(depth, key)} AND {KEY[place]} {sign} {text(key[place])}"
        return f"FROM {table}USING WHERE {where}"


@dataclass(frozen=True)
class Phase:
    """Some statements while one node is away or none, and what each node does then."""

    away: int | None
    steps: tuple[Step, ...]
    then: tuple[str, str]


KINDS = ("insert", "insert", "update", "other", "ttl")
DELETES = ("delete cells", "delete row", "delete prefix", "delete slice")
_keys = st.tuples(
    st.sampled_from("uvw"),
    st.sampled_from("cd"),
    st.sampled_from(["b", "\u00fc\U0001d11e"]),
    st.sampled_from(["", "ct", "do_1"]),
    st.sampled_from(["a0", "a1", "a'2"]),
)
_steps = st.builds(
    Step,
    st.sampled_from((*KINDS, *KINDS, *DELETES)),
    _keys,
    st.integers(0, 11),
    st.sampled_from([None, 1, 2, 3, 3]),  # ties, between cells, deletions and nodes
    st.sampled_from(["null", "0.5", "-0.0", "7", "NaN", "-Infinity", "1e300"]),
)
_ends = st.sampled_from(["", "", "flush", "compact"])
_phase = st.builds(
    Phase,
    st.sampled_from([None, 0, 1]),
    st.lists(_steps, min_size=5, max_size=40).map(tuple),
    st.tuples(_ends, _ends),
)
phases = st.lists(_phase, min_size=1, max_size=4)
few_phases = st.lists(_phase, min_size=2, max_size=3).filter(
    lambda some: len({step.kind for one in some for step in one.steps}) > 4
)
"""For few examples: the first that is drawn is else the simplest that there is."""


def text(value: str) -> str:
    """A text in CQL."""
    return "'" + value.replace("'", "''") + "'"


def using(words: list[str]) -> str:
    """The USING clause."""
    return f" USING {' AND '.join(words)}" if words else ""


def create(nodes: Nodes) -> None:
    """Create the tables of every shape, on all nodes; each change of a schema takes its time."""
    # Agreed upon once, and not after each.
    with nodes.nodes[0].session(alone=True, max_schema_agreement_wait=0) as session:
        for keyspace, shape in SHAPES.items():
            create_attempts(session, keyspace, attempts_key=shape.key, replication=len(nodes.nodes))
            for change in shape.alter:
                session.execute(f"ALTER TABLE {keyspace}.{TABLE} {change}")
    nodes.wait_until_agreed(*SHAPES)


def act(nodes: Nodes, sessions: list[Any], shapes: Names, phase: Phase, tag: str) -> None:
    """Do what a phase says to the tables of some shapes."""
    away = phase.away if len(nodes.nodes) > 1 else None
    if away is None:
        _write(sessions[0], shapes, phase.steps, tag)
    else:
        with nodes.without(away):
            _write(sessions[1 - away], shapes, phase.steps, tag)
    for number in range(len(nodes.nodes)):
        for keyspace in shapes:
            if phase.then[number] == "flush":
                nodes.flush(number, keyspace)
            elif phase.then[number] == "compact":
                nodes.compact(number, keyspace)


def _write(session: Any, shapes: Names, steps: tuple[Step, ...], tag: str) -> None:
    for step in steps:
        for keyspace in shapes:
            cql = step.cql(keyspace, SHAPES[keyspace], tag)
            session.execute(SimpleStatement(cql, consistency_level=ConsistencyLevel.ONE))


def answer(session: Any, keyspace: str) -> list[Any]:
    """Return what the whole cluster answers to a SELECT of all rows."""
    query = f"SELECT {COLUMNS} FROM {keyspace}.{TABLE}"
    statement = SimpleStatement(query, consistency_level=ConsistencyLevel.ALL)
    deadline = time.monotonic() + 60
    while True:
        try:
            return [tuple(row) for row in session.execute(statement)]
        except Unavailable:  # the nodes do not see each other yet
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)
