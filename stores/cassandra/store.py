"""The cluster as a `Store`: prepared statements, a bounded number of them in flight."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, TypeVar

from cassandra.cluster import Session
from cassandra.query import BatchStatement, BatchType, BoundStatement, PreparedStatement
from cassandra.util import OrderedMapSerializedKey

from group_scores.scores import ActivityAgg, ActivityKey, StoredAttempt
from group_scores.scores.attempt import created_on_write_time_us
from group_scores.scores.keys import ACTIVITY_TYPE
from group_scores.stores.cassandra import codec
from group_scores.stores.cassandra.address import CassandraAddress
from group_scores.stores.cassandra.schema import AGGREGATES, ATTEMPTS, Schema, read_schema
from group_scores.stores.cassandra.session import TRANSIENT_ERRORS, connect, fault
from group_scores.stores.clock import ClusterClock
from group_scores.stores.errors import AddressError, StoreFault, StoreTransientError
from group_scores.stores.protocol import (
    AggColumns,
    AggregateRow,
    AttemptsRead,
    AttemptWrite,
    Selection,
    Table,
)

IN_FLIGHT = 128
_PAGE = 1000
_READ_COLUMNS = (
    "content_id, attempt_id, toUnixTimestamp(last_attempted_on), total_score, total_max_score"
)
_ATTEMPT_SCAN = (
    "user_id, course_id, batch_id, content_id, attempt_id, created_on, last_attempted_on, "
    "updated_on, total_score, total_max_score, grand_total, question"
)
_UUID_EPOCH_100NS = 0x01B21DD213814000  # 1582-10-15, from which version 1 UUIDs count

S = TypeVar("S")
T = TypeVar("T")


class CassandraStore:
    """A `Store` on a live cluster. Raises as `connect` and `read_schema` say when it is opened."""

    def __init__(
        self,
        address: CassandraAddress,
        *,
        agg_columns: AggColumns = "auto",
        agg_details: bool | None = None,
        in_flight: int = IN_FLIGHT,
    ) -> None:
        self._address = address
        self._in_flight = in_flight
        self._session: Session = connect(address)
        try:
            self._schema = read_schema(
                self._session.cluster.metadata.keyspaces[address.keyspace]
            )
            self._columns = _value_columns(address, self._schema, agg_columns)
            self._details = _details(address, self._schema, agg_details)
            self._prepare()
            self._clock = ClusterClock(self._read_cluster_us)
        except TRANSIENT_ERRORS as error:
            self.close()
            raise StoreTransientError(f"{address}: {error}") from None
        except BaseException:
            self.close()
            raise

    def _prepare(self) -> None:
        prepare = self._session.prepare
        where = "WHERE user_id = ? AND course_id = ? AND batch_id = ?"
        self._read = prepare(f"SELECT {_READ_COLUMNS} FROM {ATTEMPTS} {where}")
        self._read_for_writing = prepare(
            f"SELECT {_READ_COLUMNS}, WRITETIME(last_attempted_on), "
            f"toUnixTimestamp(created_on) FROM {ATTEMPTS} {where}"
        )
        self._insert = prepare(
            f"INSERT INTO {ATTEMPTS} (user_id, course_id, batch_id, content_id, attempt_id, "
            "last_attempted_on, updated_on, total_score, total_max_score, grand_total, question) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) USING TIMESTAMP ?"
        )
        self._insert_created = prepare(
            f"INSERT INTO {ATTEMPTS} (user_id, course_id, batch_id, content_id, attempt_id, "
            "created_on) VALUES (?, ?, ?, ?, ?, ?) USING TIMESTAMP ?"
        )
        maps = ["agg_last_updated", *self._columns]
        key = f"activity_type = '{ACTIVITY_TYPE}' AND activity_id = ? AND user_id = ?"
        update = f"UPDATE {AGGREGATES} USING TIMESTAMP ? SET " + ", ".join(
            f"{name} = {name} + ?" for name in maps
        )
        self._update = prepare(f"{update} WHERE {key} AND context_id = ?")
        if self._details:
            self._update_details = prepare(
                f"{update}, agg_details = ? WHERE {key} AND context_id = ?"
            )
        self._read_row = prepare(
            f"SELECT agg, agg_last_updated{self._later_columns()} FROM {AGGREGATES} "
            f"WHERE {key} AND context_id = ?"
        )
        self._time = prepare("SELECT now() FROM system.local")
        self._encode_questions = codec.question_encoder(self._schema.question_fields)

    def _later_columns(self) -> str:
        return (", aggregates" if self._schema.has_aggregates else "") + (
            ", agg_details" if self._schema.has_agg_details else ""
        )

    @property
    def wants_details(self) -> bool:
        """See `Store`."""
        return self._details

    def now_us(self) -> int:
        """See `Store`."""
        return self._clock.now_us()

    def _read_cluster_us(self) -> int:
        try:
            (row,) = self._session.execute(self._time)
        except TRANSIENT_ERRORS as error:
            raise StoreTransientError(f"{self._address}: {error}") from error
        return int((row[0].time - _UUID_EPOCH_100NS) // 10)

    # Reads and writes of the pipeline

    def read_attempts(
        self, keys: Sequence[ActivityKey], *, for_writing: bool = False
    ) -> list[AttemptsRead | StoreFault]:
        """See `Store`. One statement a key; at a quorum on both sides a read sees every write."""
        statement = self._read_for_writing if for_writing else self._read
        make = _attempt_for_writing if for_writing else _attempt
        try:
            t_us = self.now_us()
        except StoreTransientError as error:
            return [error] * len(keys)
        return self._each(
            keys,
            lambda key: _bound(
                statement, [key.user_id.encode(), key.course_id.encode(), key.batch_id.encode()]
            ),
            lambda rows: AttemptsRead(t_us, [make(row) for row in rows]),
        )

    def write_attempts(self, writes: Sequence[AttemptWrite]) -> list[StoreFault | None]:
        """See `Store`. One statement a row, or one unlogged batch on the row with `created_on`."""
        return self._each(writes, self._attempt_statement, _nothing)

    def _attempt_statement(self, write: AttemptWrite) -> BoundStatement | BatchStatement:
        attempt = write.attempt
        key = [
            attempt.user_id.encode(),
            attempt.course_id.encode(),
            attempt.batch_id.encode(),
            attempt.content_id.encode(),
            attempt.attempt_id.encode(),
        ]
        now = codec.timestamp_ms(write.now_us // 1000)
        insert = _bound(
            self._insert,
            [
                *key,
                codec.timestamp_ms(attempt.last_attempted_on_ms),
                now,
                codec.double(attempt.total_score),
                codec.double(attempt.total_max_score),
                attempt.grand_total.encode(),
                self._encode_questions(attempt.questions),
                codec.bigint(write.write_us),
            ],
        )
        if not write.create:
            return insert
        created_us = created_on_write_time_us(write.now_us)
        batch = BatchStatement(BatchType.UNLOGGED)
        batch.add(insert)
        batch.add(_bound(self._insert_created, [*key, now, codec.bigint(created_us)]))
        return batch

    def read_aggregates(self, keys: Sequence[ActivityKey]) -> list[AggregateRow | StoreFault]:
        """See `Store`. One statement a key."""
        return self._each(
            keys,
            lambda key: _bound(
                self._read_row,
                [key.course_id.encode(), key.user_id.encode(), key.context_id.encode()],
            ),
            self._aggregate_row,
        )

    def _aggregate_row(self, rows: Iterable[tuple[Any, ...]]) -> AggregateRow:
        for row in rows:
            values = list(row[2:])
            aggregates = values.pop(0) if self._schema.has_aggregates else None
            details = values.pop(0) if self._schema.has_agg_details else None
            updated = {key: _epoch_ms(time) for key, time in (row[1] or {}).items()}
            return AggregateRow(
                dict(row[0] or {}), dict(aggregates or {}), updated, list(details or ())
            )
        return AggregateRow({}, {}, {}, [])

    def write_aggregates(self, updates: Sequence[ActivityAgg]) -> list[StoreFault | None]:
        """See `Store`. One statement a row, all its cells with the one time."""
        return self._each(updates, self._aggregate_statement, _nothing)

    def _aggregate_statement(self, update: ActivityAgg) -> BoundStatement:
        key = update.key
        values = [
            codec.bigint(update.t_us),
            codec.map_of_timestamp(list(update.metrics), update.updated_ms),
        ]
        for name in self._columns:
            values.append(
                codec.map_of_int(update.agg)
                if name == "agg"
                else codec.map_of_double(update.metrics)
            )
        statement = self._update
        if self._details and update.details is not None:
            statement = self._update_details
            values.append(codec.list_of_text(update.details))
        values += [key.course_id.encode(), key.user_id.encode(), key.context_id.encode()]
        return _bound(statement, values)

    def _each(
        self,
        items: Iterable[S],
        build: Callable[[S], BoundStatement | BatchStatement],
        make: Callable[[Iterable[tuple[Any, ...]]], T],
    ) -> list[T | StoreFault]:
        """Send a statement for each item, at most `in_flight` at a time; return their results."""
        results: list[T | StoreFault] = []
        pending: deque[Any] = deque()

        def collect() -> None:
            sent = pending.popleft()
            try:
                results.append(make(sent.result()))
            except Exception as error:
                results.append(fault(error))

        for item in items:
            if len(pending) >= self._in_flight:
                collect()
            try:
                pending.append(self._session.execute_async(build(item)))
            except Exception as error:
                pending.append(_NotSent(error))
        while pending:
            collect()
        return results

    # Scans

    def scan(self, table: Table, selection: Selection) -> Iterator[dict[str, object]]:
        """See `Store`. By key where the selection gives the partition, else over the whole table.

        A selection that is no partition is filtered by the nodes: it costs a read of the table.
        """
        if table == "attempts":
            columns, name, where = _ATTEMPT_SCAN, ATTEMPTS, self._attempt_filter(selection)
        else:
            columns = "activity_type, activity_id, user_id, context_id, agg, agg_last_updated"
            columns += self._later_columns()
            name, where = AGGREGATES, _aggregate_filter(selection)
        query = f"SELECT {columns} FROM {name}"
        if where:
            query += " WHERE " + " AND ".join(f"{c} = ?" for c in where) + " ALLOW FILTERING"
        try:
            statement = self._session.prepare(query).bind(list(where.values()))
            statement.fetch_size = _PAGE
            names = columns.split(", ")
            for row in self._session.execute(statement, timeout=60.0):
                record = {n: _plain(v) for n, v in zip(names, row, strict=True)}
                yield _with_empty_maps(record) if table == "aggregates" else record
        except TRANSIENT_ERRORS as error:
            raise StoreTransientError(f"{self._address}: {error}") from error

    @staticmethod
    def _attempt_filter(selection: Selection) -> dict[str, str]:
        given = {
            "course_id": selection.course_id,
            "batch_id": selection.batch_id,
            "user_id": selection.user_id,
        }
        return {name: value for name, value in given.items() if value is not None}

    def close(self) -> None:
        """See `Store`."""
        self._session.cluster.shutdown()


class _NotSent:
    """A statement that could not be sent, in the place of its future."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def result(self) -> Any:
        raise self._error


def _bound(statement: PreparedStatement, values: list[bytes]) -> BoundStatement:
    """Bind values that are encoded already; the driver still finds the routing key in them."""
    bound = BoundStatement(statement)
    bound.values = values
    return bound


def _nothing(_: object) -> None:
    return None


def _attempt(row: tuple[Any, ...]) -> StoredAttempt:
    return StoredAttempt(*row)


def _attempt_for_writing(row: tuple[Any, ...]) -> StoredAttempt:
    return StoredAttempt(*row[:6], row[6] is not None)


def _value_columns(
    address: CassandraAddress, schema: Schema, wanted: AggColumns
) -> tuple[str, ...]:
    if wanted == "aggregates" and not schema.has_aggregates:
        raise AddressError(
            f"{address}: {AGGREGATES} has no column 'aggregates'; add it "
            f"(ALTER TABLE {AGGREGATES} ADD aggregates map<text, double>) "
            "or use --agg-columns agg"
        )
    if wanted == "auto":
        return ("agg", "aggregates") if schema.has_aggregates else ("agg",)
    return (wanted,)


def _details(address: CassandraAddress, schema: Schema, wanted: bool | None) -> bool:
    if wanted and not schema.has_agg_details:
        raise AddressError(
            f"{address}: {AGGREGATES} has no column 'agg_details'; add it "
            f"(ALTER TABLE {AGGREGATES} ADD agg_details list<text>) or use --agg-details off"
        )
    return schema.has_agg_details and wanted is not False


def _aggregate_filter(selection: Selection) -> dict[str, str]:
    where = {"activity_type": ACTIVITY_TYPE} if selection != Selection() else {}
    if selection.course_id is not None:
        where["activity_id"] = selection.course_id
    if selection.user_id is not None:
        where["user_id"] = selection.user_id
    if selection.batch_id is not None:
        where["context_id"] = "cb:" + selection.batch_id
    return where


def _epoch_ms(time: datetime) -> int:
    # The driver gives naive datetimes in UTC.
    return round((time - datetime(1970, 1, 1)).total_seconds() * 1000)


def _plain(value: Any) -> object:
    """Turn a column's value into what JSON has: times in epoch ms, decimals as numbers."""
    if isinstance(value, datetime):
        return _epoch_ms(value)
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None  # JSON has no NaN
    if isinstance(value, OrderedMapSerializedKey | dict):
        return {key: _plain(item) for key, item in value.items()}
    if hasattr(value, "_fields"):
        return {name: _plain(item) for name, item in zip(value._fields, value, strict=True)}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def _with_empty_maps(record: dict[str, object]) -> dict[str, object]:
    for name in ("agg", "agg_last_updated", "aggregates"):
        if name in record and record[name] is None:
            record[name] = {}
    return record
