"""The embedded store: one file, the same rules as the cluster.

Every cell carries its write time, so that partial updates, newest-wins and repeated deliveries
behave as they do in Cassandra. Several processes may share the file.
"""

from __future__ import annotations

import json
import math
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from itertools import groupby
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from group_scores.scores import ActivityAgg, ActivityKey, AggregateRow, StoredAttempt
from group_scores.scores.keys import ACTIVITY_TYPE
from group_scores.stores import sqlite_statements as sql
from group_scores.stores.errors import (
    AddressError,
    StoreFault,
    StoreRefusedError,
    StoreTransientError,
)
from group_scores.stores.protocol import (
    ActivityRow,
    AggColumns,
    AttemptsRead,
    AttemptWrite,
    Pruning,
    Selection,
    Table,
)
from group_scores.stores.sqlite_rows import aggregate_record, aggregate_row, question_record

_LOCK_WAIT_S = 20.0
_MAPS = ("agg", "agg_last_updated", "aggregates")
_COLLECTIONS = (*_MAPS, "agg_details")
_UNFIT = (UnicodeEncodeError, OverflowError, sqlite3.DataError)  # a value that no column takes
_json_text = msgspec.json.Encoder().encode

S = TypeVar("S")
T = TypeVar("T")


class SqliteStore:
    """A `Store` in the SQLite file `path`, which is made where it is absent.

    Raises AddressError for a path that cannot be a database of ours.
    """

    def __init__(
        self, path: str, *, agg_columns: AggColumns = "auto", agg_details: bool | None = None
    ) -> None:
        self._path = path
        self._maps = [
            name for name in ("agg", "aggregates") if agg_columns == "auto" or name == agg_columns
        ]
        self._details = agg_details is not False
        self._lock = threading.RLock()
        self._db = _open(path)

    @property
    def wants_details(self) -> bool:
        """See `Store`."""
        return self._details

    @property
    def value_maps(self) -> tuple[str, ...]:
        """See `Store`."""
        return tuple(self._maps)

    @property
    def cluster(self) -> str | None:
        """See `Store`: a file is somebody's own copy."""
        return None

    def now_us(self) -> int:
        """Return a time from the file itself, so that all its users share one clock."""
        with self._transaction() as db:
            (us,) = db.execute(sql.TICK, (time.time_ns() // 1000,)).fetchone()
        return int(us)

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                self._db.execute("BEGIN IMMEDIATE")
                try:
                    yield self._db
                    self._db.execute("COMMIT")
                except BaseException:
                    if self._db.in_transaction:  # not where SQLite has rolled it back
                        self._db.execute("ROLLBACK")
                    raise
            except sqlite3.OperationalError as error:
                raise StoreTransientError(f"sqlite:{self._path}: {error}") from error
            except sqlite3.DatabaseError as error:
                raise AddressError(f"sqlite:{self._path}: {error}; name another file") from error

    def _each(
        self, items: Sequence[S], do: Callable[[sqlite3.Connection, S], T]
    ) -> list[T | StoreFault]:
        """Do all in one transaction; an item with an unfit value is refused and leaves nothing."""
        try:
            with self._transaction() as db:
                return [_alone(db, do, item) for item in items]
        except StoreTransientError as fault:
            return [fault] * len(items)

    def read_attempts(
        self, keys: Sequence[ActivityKey], *, for_writing: bool = False
    ) -> list[AttemptsRead | StoreFault]:
        """See `Store`. One transaction, after the time."""
        try:
            t_us = self.now_us()
        except StoreTransientError as fault:
            return [fault] * len(keys)

        def read(db: sqlite3.Connection, key: ActivityKey) -> AttemptsRead:
            rows = db.execute(sql.READ_ATTEMPTS, (key.user_id, key.course_id, key.batch_id))
            return AttemptsRead(t_us, [_attempt(row) for row in rows])

        return self._each(keys, read)

    def write_attempts(self, writes: Sequence[AttemptWrite]) -> list[StoreFault | None]:
        """See `Store`. One transaction."""
        return self._each(writes, self._write)

    @staticmethod
    def _write(db: sqlite3.Connection, write: AttemptWrite) -> None:
        attempt = write.attempt
        key = (
            attempt.user_id,
            attempt.course_id,
            attempt.batch_id,
            attempt.content_id,
            attempt.attempt_id,
        )
        now_ms = write.now_us // 1000
        values = (
            attempt.last_attempted_on_ms,
            now_ms,
            attempt.total_score,
            attempt.total_max_score,
            attempt.grand_total,
            _json_text(attempt.questions).decode(),
            write.write_us,
        )
        db.execute(sql.WRITE_ATTEMPT, key + values)
        if write.create:
            db.execute(sql.WRITE_CREATED, (now_ms, *key, now_ms))

    def read_aggregates(self, keys: Sequence[ActivityKey]) -> list[AggregateRow | StoreFault]:
        """See `Store`."""
        return self._each(keys, self._read_aggregate)

    def read_activity(
        self,
        activity_type: str,
        activity_id: str,
        user_ids: Sequence[str],
        *,
        details: bool = False,
    ) -> list[list[ActivityRow] | StoreFault]:
        """See `Store`. The file holds courses only."""
        if activity_type != ACTIVITY_TYPE:
            return [[] for _ in user_ids]
        try:
            with self._reader() as db:
                return [_activity_rows(db, (activity_id, user, details)) for user in user_ids]
        except sqlite3.OperationalError as error:
            return [StoreTransientError(f"sqlite:{self._path}: {error}")] * len(user_ids)

    def hold(
        self, updates: Sequence[ActivityAgg], metrics: Sequence[str]
    ) -> list[bool | StoreFault]:
        """See `Store`. Never known here: the row would be read in the same way."""
        return [False] * len(updates)

    @staticmethod
    def _read_aggregate(db: sqlite3.Connection, key: ActivityKey) -> AggregateRow:
        rows = db.execute(sql.READ_AGGREGATE, (key.course_id, key.user_id, key.context_id))
        return aggregate_row(rows.fetchall())

    def write_aggregates(self, updates: Sequence[ActivityAgg]) -> list[StoreFault | None]:
        """See `Store`. One transaction."""
        return self._each(updates, self._write_aggregate)

    def _write_aggregate(self, db: sqlite3.Connection, update: ActivityAgg) -> None:
        db.executemany(sql.WRITE_CELL, self._cells(update))

    def _cells(self, update: ActivityAgg) -> Iterator[tuple[object, ...]]:
        key = update.key
        row = (key.course_id, key.user_id, key.context_id)
        maps: dict[str, dict[str, int] | dict[str, float]] = {
            "agg_last_updated": dict.fromkeys(update.metrics, update.updated_ms)
        }
        if "agg" in self._maps:
            maps["agg"] = update.agg
        if "aggregates" in self._maps:
            maps["aggregates"] = update.metrics
        for name, cells in maps.items():
            for metric, value in cells.items():
                yield (*row, name, metric, value, update.t_us)
        if update.details is not None and self._details:
            yield (*row, "agg_details", "", json.dumps(update.details), update.t_us)

    def prune_aggregates(self, prunings: Sequence[Pruning]) -> list[StoreFault | None]:
        """See `Store`. One transaction."""
        return self._each(prunings, self._prune)

    def _prune(self, db: sqlite3.Connection, pruning: Pruning) -> None:
        key, t_us = pruning.key, pruning.t_us
        row = (key.course_id, key.user_id, key.context_id)
        cells = [(one, name) for one in self._maps for name in pruning.names]
        cells += [("agg_last_updated", name) for name in pruning.updated]
        db.executemany(sql.PRUNE_CELL, [(*row, *cell, t_us) for cell in cells])

    def scan(self, table: Table, selection: Selection) -> Iterator[dict[str, object]]:
        """See `Store`. In key order."""
        scan = self._scan_attempts if table == "attempts" else self._scan_aggregates
        try:
            yield from scan(selection)
        except sqlite3.OperationalError as error:
            raise StoreTransientError(f"sqlite:{self._path}: {error}") from error
        except sqlite3.DatabaseError as error:
            raise AddressError(f"sqlite:{self._path}: {error}; name another file") from error

    def _scan_attempts(self, selection: Selection) -> Iterator[dict[str, object]]:
        where, values = _where(
            course_id=selection.course_id, batch_id=selection.batch_id, user_id=selection.user_id
        )
        names = sql.ATTEMPT_COLUMNS.split(", ")
        query = (
            f"SELECT {sql.ATTEMPT_COLUMNS} FROM assessment_aggregator{where} "
            "ORDER BY user_id, course_id, batch_id, content_id, attempt_id"
        )
        for row in self._rows(query, values):
            record = {name: _plain(value) for name, value in zip(names, row, strict=True)}
            record["question"] = list(map(question_record, json.loads(record["question"])))
            yield record

    def _scan_aggregates(self, selection: Selection) -> Iterator[dict[str, object]]:
        context = None if selection.batch_id is None else "cb:" + selection.batch_id
        where, values = _where(
            activity_id=selection.course_id, context_id=context, user_id=selection.user_id
        )
        query = (
            "SELECT activity_id, user_id, context_id, map, key, value, write_us "
            f"FROM user_activity_agg_cell{where} "
            "ORDER BY activity_id, user_id, context_id, map, key"
        )
        for key, cells in groupby(self._rows(query, values), key=lambda row: row[:3]):
            record = aggregate_record(key, [cell[3:] for cell in cells])
            if any(record[name] for name in _COLLECTIONS):  # a row of nothing is none
                yield record

    def _rows(self, query: str, values: list[str]) -> Iterator[tuple[Any, ...]]:
        with self._reader() as db:
            yield from db.execute(query, values)

    def _reader(self) -> closing[sqlite3.Connection]:
        # A connection of its own: a scan must not hold up the writers, nor see half a transaction.
        uri = Path(self._path).absolute().as_uri() + "?mode=ro"
        return closing(sqlite3.connect(uri, uri=True, timeout=_LOCK_WAIT_S))

    def close(self) -> None:
        """See `Store`."""
        with self._lock:
            self._db.close()


def _open(path: str) -> sqlite3.Connection:
    """Open the file and make its tables; raises AddressError where it cannot be ours."""
    folder = Path(path).absolute().parent
    if not folder.is_dir():
        raise AddressError(f"sqlite:{path}: the folder {folder} does not exist; make it first")
    try:
        db = sqlite3.connect(
            path, timeout=_LOCK_WAIT_S, isolation_level=None, check_same_thread=False
        )
    except sqlite3.Error as error:
        raise AddressError(f"sqlite:{path}: {error}; name another file") from None
    try:
        _set_up(db)
    except sqlite3.Error as error:
        db.close()
        raise AddressError(f"sqlite:{path}: {error}; name another file") from None
    return db


def _set_up(db: sqlite3.Connection) -> None:
    """Make the tables, also where another process is about to make them."""
    end = time.monotonic() + _LOCK_WAIT_S
    while True:
        try:
            # SQLite waits for no lock here: of two that open a new file at once, one is refused.
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = NORMAL")
            db.executescript(sql.SCHEMA)
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > end:
                raise
            time.sleep(0.02)
        else:
            return


def _alone(
    db: sqlite3.Connection, do: Callable[[sqlite3.Connection, S], T], item: S
) -> T | StoreFault:
    db.execute("SAVEPOINT item")
    try:
        return do(db, item)
    except _UNFIT as error:
        db.execute("ROLLBACK TO item")
        return StoreRefusedError(f"a value cannot be stored: {error}")
    finally:
        db.execute("RELEASE item")


def _attempt(row: tuple[Any, ...]) -> StoredAttempt:
    content_id, attempt_id, attempted_on, score, max_score, write_us, created = row
    return StoredAttempt(
        content_id, attempt_id, attempted_on, score, max_score, write_us, bool(created)
    )


def _where(**columns: str | None) -> tuple[str, list[str]]:
    given = {name: value for name, value in columns.items() if value is not None}
    clause = " AND ".join(f"{name} = ?" for name in given)
    return (f" WHERE {clause}" if clause else ""), list(given.values())


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _activity_rows(
    db: sqlite3.Connection, values: tuple[str, str, bool]
) -> list[ActivityRow] | StoreFault:
    try:
        cells = db.execute(sql.READ_ACTIVITY, values).fetchall()
    except _UNFIT as error:
        return StoreRefusedError(f"a value cannot be looked up: {error}")
    found = groupby((cell for cell in cells if cell[3] is not None), key=lambda cell: cell[0])
    return [ActivityRow(name, aggregate_row([one[1:] for one in row])) for name, row in found]
