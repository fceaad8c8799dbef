"""Both stores behind one handle, in every shape of the tables that is found in the field."""

from __future__ import annotations

import contextlib
import itertools
import json
import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest

from group_scores.scores import ActivityKey
from group_scores.stores import Selection, Store, StoreConfig, open_store
from tests.servers.cassandra_server import CassandraServer, create_tables

_numbers = itertools.count(1)


@dataclass(frozen=True)
class Shape:
    """One kind of store: `attempts_key` None is SQLite, else how Cassandra's tables look."""

    name: str
    attempts_key: Literal["user", "course"] | None = None
    with_aggregates: bool = True
    with_agg_details: bool = True

    def __str__(self) -> str:
        return self.name

    @property
    def is_cassandra(self) -> bool:
        """Whether it needs the server."""
        return self.attempts_key is not None


SQLITE = Shape("sqlite")
NEW = Shape("cassandra", "user")
OLD_KEY = Shape("cassandra-old-key", "course", with_agg_details=False)
NO_AGGREGATES = Shape("cassandra-no-aggregates", "user", with_aggregates=False)
OLDEST = Shape("cassandra-oldest", "course", with_aggregates=False, with_agg_details=False)
SHAPES = (SQLITE, NEW, OLD_KEY, NO_AGGREGATES, OLDEST)
FULL_SHAPES = (SQLITE, NEW)


class Backend:
    """One set of tables, a store on them, and the ways round the store that other jobs take."""

    def __init__(self, shape: Shape, address: str, stack: contextlib.ExitStack) -> None:
        self.shape = shape
        self.address = address
        self._stack = stack
        self.store: Store = self.open()

    def open(self, **options: Any) -> Store:
        """Open another store on the same tables, closed with this backend."""
        store = open_store(StoreConfig(self.address, **options))
        self._stack.callback(store.close)
        return store

    def rows(self, table: Literal["attempts", "aggregates"], key: ActivityKey) -> list[Any]:
        """Return the learner's rows as a scan gives them."""
        selection = Selection(course_id=key.course_id, batch_id=key.batch_id, user_id=key.user_id)
        return list(self.store.scan(table, selection))

    def put_foreign(self, key: ActivityKey, agg: Mapping[str, int], t_us: int) -> None:
        """Put keys of another job into the row's `agg`, as that job does it."""
        raise NotImplementedError


class SqliteBackend(Backend):
    """A file of its own."""

    @property
    def path(self) -> str:
        """The database file."""
        return self.address.removeprefix("sqlite:")

    def put_foreign(self, key: ActivityKey, agg: Mapping[str, int], t_us: int) -> None:
        """See `Backend`."""
        with contextlib.closing(sqlite3.connect(self.path)) as db, db:
            for name, value in agg.items():
                db.execute(
                    "INSERT INTO user_activity_agg_cell VALUES (?, ?, ?, 'agg', ?, ?, ?)",
                    (key.course_id, key.user_id, key.context_id, name, value, t_us),
                )


class CassandraBackend(Backend):
    """A keyspace of its own; `session` is the driver's, on that keyspace by name."""

    def __init__(
        self, shape: Shape, address: str, stack: contextlib.ExitStack, session: Any
    ) -> None:
        super().__init__(shape, address, stack)
        self.session = session
        self.keyspace = address.rpartition("/")[2]

    def execute(self, cql: str, values: tuple[object, ...] = ()) -> list[Any]:
        """Run a statement of a test's own; `{ks}` in it is the keyspace."""
        return list(self.session.execute(cql.replace("{ks}", self.keyspace), values))

    def put_foreign(self, key: ActivityKey, agg: Mapping[str, int], t_us: int) -> None:
        """See `Backend`."""
        self.execute(
            "UPDATE {ks}.user_activity_agg USING TIMESTAMP %s SET agg = agg + %s WHERE "
            "activity_type = 'Course' AND activity_id = %s AND user_id = %s AND context_id = %s",
            (t_us, dict(agg), key.course_id, key.user_id, key.context_id),
        )


@contextlib.contextmanager
def backend_of(shape: Shape, request: pytest.FixtureRequest, folder: Path) -> Iterator[Any]:
    """Make the tables of that shape and open a store; the server starts where it is needed."""
    with contextlib.ExitStack() as stack:
        if not shape.is_cassandra:
            yield SqliteBackend(shape, f"sqlite:{folder / 'scores.db'}", stack)
            return
        server: CassandraServer = request.getfixturevalue("cassandra")
        session = request.getfixturevalue("cassandra_session")
        keyspace = f"stores_{next(_numbers)}"
        create_tables(
            session,
            keyspace,
            attempts_key=shape.attempts_key or "user",
            with_aggregates=shape.with_aggregates,
            with_agg_details=shape.with_agg_details,
        )
        stack.callback(session.execute, f"DROP KEYSPACE {keyspace}")
        address = f"cassandra://{server.host}:{server.port}/{keyspace}"
        yield CassandraBackend(shape, address, stack, session)


def as_json(value: object) -> str:
    """Return a row as text that tells NaN, -0.0 and 1 from 1.0 apart."""
    return json.dumps(value, sort_keys=True)
