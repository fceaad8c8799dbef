"""The cluster as a `Store`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from typing import Any, TypeVar

from group_scores.scores import ActivityAgg, ActivityKey, AggregateRow, StoredAttempt
from group_scores.stores.cassandra.address import CassandraAddress
from group_scores.stores.cassandra.cluster_time import ClusterTime
from group_scores.stores.cassandra.faults import fault, is_drivers, start_error
from group_scores.stores.cassandra.identity import identity
from group_scores.stores.cassandra.limits import read_limits
from group_scores.stores.cassandra.packing import (
    Lookup,
    Row,
    batch,
    fitting,
    pack_lookups,
    pack_rows,
)
from group_scores.stores.cassandra.raw_rows import holds
from group_scores.stores.cassandra.rows import activity_row, aggregate_row
from group_scores.stores.cassandra.scan import scan
from group_scores.stores.cassandra.schema import AGGREGATES, Schema, read_schema
from group_scores.stores.cassandra.sending import Sender
from group_scores.stores.cassandra.session import connect
from group_scores.stores.cassandra.statements import Statements
from group_scores.stores.cassandra.wire import Bound, RawCollections
from group_scores.stores.clock import ClusterClock
from group_scores.stores.errors import (
    AddressError,
    StoreFault,
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

IN_FLIGHT = 256
_NOBODY = ActivityKey("-", "-", "-")

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
        self._session = connect(address)
        try:
            self._schema = read_schema(self._session.cluster.metadata.keyspaces[address.keyspace])
            self._columns = _value_columns(address, self._schema, agg_columns)
            self._details = _details(address, self._schema, agg_details)
            self._statements = Statements(self._session, self._schema, self._columns, self._details)
            self._limits = read_limits(self._session)
            self._sender = Sender(self._session, address.keyspace, in_flight)
            self._clock = ClusterClock(ClusterTime(self._session, address).now_us)
            self._try_to_read()
        except BaseException as error:
            self.close()
            if isinstance(error, Exception) and is_drivers(error):
                raise start_error(address, error) from None
            raise

    def _try_to_read(self) -> None:
        """Find out now whether the consistency can be met and the user may read."""
        for lookup, read in (
            (self._statements.attempts_lookup, self._read_for_writing),
            (self._statements.aggregate_lookup, self._read_row),
        ):
            self._session.execute(read([lookup(0, _NOBODY)]))

    @cached_property
    def _raw_sender(self) -> Sender:
        """Sends reads whose collections stay bytes: the driver decides that by the session."""
        session = self._session.cluster.connect()
        session.client_protocol_handler = RawCollections
        return Sender(session, self._address.keyspace, self._in_flight)

    @property
    def wants_details(self) -> bool:
        """See `Store`."""
        return self._details

    @property
    def value_maps(self) -> tuple[str, ...]:
        """See `Store`."""
        return self._columns

    @property
    def cluster(self) -> str | None:
        """See `Store`."""
        return identity(self._session, self._address.keyspace)

    def now_us(self) -> int:
        """See `Store`."""
        return self._clock.now_us()

    # Reads

    def read_attempts(
        self, keys: Sequence[ActivityKey], *, for_writing: bool = False
    ) -> list[AttemptsRead | StoreFault]:
        """See `Store`. At a quorum on both sides a read sees every write before it."""
        make = _attempt_for_writing if for_writing else _attempt
        try:
            t_us = self.now_us()
        except StoreTransientError as error:
            return [error] * len(keys)
        return self._look_up(
            keys,
            self._statements.attempts_lookup,
            self._read_for_writing if for_writing else self._read,
            lambda rows: AttemptsRead(t_us, list(map(make, rows))),
        )

    def _read(self, lookups: Sequence[Lookup]) -> Bound:
        return self._statements.read_attempts(lookups, for_writing=False)

    def _read_for_writing(self, lookups: Sequence[Lookup]) -> Bound:
        return self._statements.read_attempts(lookups, for_writing=True)

    def read_aggregates(self, keys: Sequence[ActivityKey]) -> list[AggregateRow | StoreFault]:
        """See `Store`."""
        return self._look_up(
            keys,
            self._statements.aggregate_lookup,
            self._read_row,
            self._aggregate_row,
        )

    def _read_row(self, lookups: Sequence[Lookup]) -> Bound:
        return self._statements.read_aggregates(lookups, times=True)

    def _aggregate_row(self, rows: Sequence[tuple[Any, ...]]) -> AggregateRow:
        if not rows:
            return AggregateRow({}, {}, {}, [])
        return aggregate_row(self._schema.aggregate_values, rows[0][1:])

    def read_activity(
        self,
        activity_type: str,
        activity_id: str,
        user_ids: Sequence[str],
        *,
        details: bool = False,
    ) -> list[list[ActivityRow] | StoreFault]:
        """See `Store`. Learners of one node travel together, a few to a statement."""
        schema = self._schema
        columns = schema.aggregate_values if details else schema.columns_without_details
        try:
            sender = self._raw_sender
        except Exception as error:
            return [fault(error)] * len(user_ids)
        return self._look_up(
            [ActivityKey(activity_id, user_id, "") for user_id in user_ids],  # of any batch
            lambda item, key: self._statements.activity_lookup(
                item, activity_type, activity_id, key.user_id
            ),
            lambda lookups: self._statements.read_activity(lookups, details=details),
            lambda rows: [activity_row(columns, row[1:]) for row in rows],
            sender,
        )

    def hold(
        self, updates: Sequence[ActivityAgg], metrics: Sequence[str]
    ) -> list[bool | StoreFault]:
        """See `Store`."""
        columns = self._schema.aggregate_values
        try:
            sender = self._raw_sender
        except Exception as error:
            return [fault(error)] * len(updates)
        rows = self._look_up(
            [update.key for update in updates],
            self._statements.aggregate_lookup,
            lambda lookups: self._statements.read_aggregates(lookups, times=False),
            lambda rows: dict(zip(columns, rows[0][1:], strict=True)) if rows else {},
            sender,
        )
        return [
            row
            if isinstance(row, StoreFault)
            else holds(update, row, maps=self._columns, metrics=metrics)
            for update, row in zip(updates, rows, strict=True)
        ]

    def _look_up(
        self,
        keys: Sequence[ActivityKey],
        lookup: Callable[[int, ActivityKey], Lookup],
        statement: Callable[[list[Lookup]], Bound],
        make: Callable[[Sequence[tuple[Any, ...]]], T],
        sender: Sender | None = None,
    ) -> list[T | StoreFault]:
        results: dict[int, T | StoreFault] = {}
        lookups = _built(keys, lookup, results)
        groups = pack_lookups(lookups, self._sender.replica, self._limits)
        for group, outcome in (sender or self._sender).send(groups, statement):
            if isinstance(outcome, StoreFault):
                results.update((one.item, outcome) for one in group)
                continue
            rows: dict[str, list[tuple[Any, ...]]] = {}
            for row in outcome:
                rows.setdefault(row[0], []).append(row)
            for one in group:
                results[one.item] = make(rows.get(keys[one.item].user_id, ()))
        return [results[item] for item in range(len(keys))]

    # Writes

    def write_attempts(self, writes: Sequence[AttemptWrite]) -> list[StoreFault | None]:
        """See `Store`."""
        return self._write(writes, self._statements.write_attempt)

    def write_aggregates(self, updates: Sequence[ActivityAgg]) -> list[StoreFault | None]:
        """See `Store`."""
        return self._write(updates, self._statements.write_aggregate)

    def _write(self, items: Sequence[S], build: Callable[[int, S], Row]) -> list[StoreFault | None]:
        results: dict[int, StoreFault] = {}
        rows = fitting(_built(items, build, results), self._limits, results)
        groups = pack_rows(rows, self._sender.replica, self._limits)
        for group, outcome in self._sender.send(groups, batch):
            if isinstance(outcome, StoreFault):
                results.update((row.item, outcome) for row in group)
        return [results.get(item) for item in range(len(items))]

    def prune_aggregates(self, prunings: Sequence[Pruning]) -> list[StoreFault | None]:
        """See `Store`."""
        return self._write(prunings, self._statements.prune_aggregate)

    # Scans

    def scan(self, table: Table, selection: Selection) -> Iterator[dict[str, object]]:
        """See `Store`. By key where the selection gives the partition, else over the whole table.

        A selection that is no partition is filtered by the nodes: it costs a read of the table.
        """
        try:
            yield from scan(self._session, self._schema, table, selection)
        except Exception as error:
            if not is_drivers(error):
                raise
            raise fault(error) from error

    def close(self) -> None:
        """See `Store`."""
        self._session.cluster.shutdown()


def _built(
    items: Iterable[S], build: Callable[[int, S], T], results: dict[int, Any]
) -> Iterator[T]:
    """Build what is sent for each item; one that cannot be encoded has its fault in `results`."""
    for index, item in enumerate(items):
        try:
            built = build(index, item)
        except Exception as error:
            results[index] = fault(error)
        else:
            yield built


def _attempt(row: tuple[Any, ...]) -> StoredAttempt:
    return StoredAttempt(*row[1:])


def _attempt_for_writing(row: tuple[Any, ...]) -> StoredAttempt:
    _, content_id, attempt_id, attempted_on, score, max_score, write_us, created_on = row
    return StoredAttempt(
        content_id, attempt_id, attempted_on, score, max_score, write_us, created_on is not None
    )


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
