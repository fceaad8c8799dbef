"""Read any table by token ranges, page by page; knows no Beam."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar

from cassandra import DriverException, OperationTimedOut, Timeout
from cassandra.cluster import EXEC_PROFILE_DEFAULT
from cassandra.metadata import Murmur3Token
from cassandra.policies import HostDistance
from cassandra.query import BoundStatement, PreparedStatement

from group_scores.stores.address import did_you_mean
from group_scores.stores.cassandra.address import CassandraAddress
from group_scores.stores.cassandra.faults import fault, is_drivers, start_error
from group_scores.stores.cassandra.ranges import (
    MIN_TOKEN,
    RING,
    WHOLE_RING,
    PlannedRange,
    SizeEstimate,
    TableSize,
    TokenRange,
    plan,
    table_size,
)
from group_scores.stores.cassandra.session import connect
from group_scores.stores.errors import AddressError
from group_scores.stores.rate import RowRate

FETCH_ROWS = 5000
PAGE_TIMEOUT_S = 20.0  # the nodes give up before that, and say why
_ESTIMATES_TIMEOUT_S = 5.0
_LEAST_FETCH_ROWS = 100
_SAMPLE_ROWS = 1000

T = TypeVar("T")
Row = tuple[Any, ...]


@dataclass(frozen=True)
class TableSource:
    """What to read: the columns of a table's rows, or of those whose columns equal `where`.

    Without `columns` all of them are read, in the order of the table. Where `where` gives the
    partition key only that partition is read, otherwise the nodes filter. `rows_s` is how many
    rows a second all readers of a process together ask for.
    """

    address: CassandraAddress
    table: str
    columns: tuple[str, ...] = ()
    where: tuple[tuple[str, Any], ...] = ()
    rows_s: float | None = None
    fetch_rows: int = FETCH_ROWS


class Page(NamedTuple):
    """Rows as they came, the partition's token before the columns; ascending by token.

    `t_us` is the time before they were asked for, `last` whether they end the range.
    """

    t_us: int
    rows: list[Row]
    last: bool


class Chunk(NamedTuple, Generic[T]):
    """Some items of a range in the order of their tokens, with the token of each.

    The items of one partition may go on in the next chunk.
    """

    t_us: int
    tokens: list[int]
    items: list[T]


Call = Callable[[Callable[[], Page]], Page]
"""How the fetch of a page is called: once, or again after a StoreTransientError."""


def once(fetch: Callable[[], Page]) -> Page:
    """Call it without trying again."""
    return fetch()


def no_time() -> int:
    """Return no time: rows whose time does not matter have none."""
    return 0


class TableReader:
    """Reads a table of a live cluster; threads may share it.

    Raises AddressError or ServiceUnavailableError when it is opened, as the store does.
    """

    def __init__(self, source: TableSource) -> None:
        self.source = source
        self._rate = RowRate(source.rows_s) if source.rows_s else None
        self._session = connect(source.address)
        try:
            self._open()
        except BaseException as error:
            self.close()
            if isinstance(error, Exception) and is_drivers(error):
                raise start_error(source.address, error) from None
            raise

    def _open(self) -> None:
        source = self.source
        metadata = self._session.cluster.metadata
        self._check(metadata.keyspaces[source.address.keyspace])
        if metadata.token_map is None or metadata.token_map.token_class is not Murmur3Token:
            raise AddressError(
                f"{source.address} is partitioned by {metadata.partitioner}; only Murmur3 is read"
            )
        table = metadata.keyspaces[source.address.keyspace].tables[source.table]
        self.columns = source.columns or tuple(table.columns)
        partition = [column.name for column in table.partition_key]
        where = dict(source.where)
        self._statement = self._prepare(partition, where)
        self._pinned: TokenRange | None = None
        if where.keys() >= set(partition):
            key = self._statement.bind(list(where.values())).routing_key
            token = Murmur3Token.from_key(key).value
            self._pinned = TokenRange(token - 1, token)
        # Find out now whether the consistency can be met and the user may read.
        self._session.execute(self._bound(TokenRange(MIN_TOKEN, MIN_TOKEN + 1), 1))

    def _check(self, keyspace: Any) -> None:
        """Raise AddressError where the table is not there, or has not these columns."""
        name = self.source.table
        table = keyspace.tables.get(name)
        if table is None:
            raise AddressError(
                f"keyspace {keyspace.name!r} has no table {name!r}"
                f"{did_you_mean(name, keyspace.tables)}"
            )
        for column in (*self.source.columns, *dict(self.source.where)):
            if column not in table.columns:
                raise AddressError(
                    f"table {keyspace.name}.{name} has no column {column!r}"
                    f"{did_you_mean(column, table.columns)}"
                )

    def _prepare(self, partition: Sequence[str], where: dict[str, Any]) -> PreparedStatement:
        token = f"token({', '.join(map(_quoted, partition))})"
        columns = ", ".join(map(_quoted, self.columns))
        name = f"{_quoted(self.source.address.keyspace)}.{_quoted(self.source.table)}"
        conditions = [f"{_quoted(column)} = ?" for column in where]
        end = ""
        if not where.keys() >= set(partition):
            conditions = [f"{token} > ?", f"{token} <= ?", *conditions]
        if where and where.keys() != set(partition):
            end = " ALLOW FILTERING"
        return self._session.prepare(
            f"SELECT {token}, {columns} FROM {name} WHERE {' AND '.join(conditions)}{end}"
        )

    def _bound(self, tokens: TokenRange, fetch_rows: int) -> BoundStatement:
        values = [value for _, value in self.source.where]
        bound = self._statement.bind(values if self._pinned else [*tokens, *values])
        bound.fetch_size = fetch_rows
        return bound

    # What there is to read

    def ranges(self) -> list[PlannedRange]:
        """Return the ranges to read, of a size for one reader each. Raises StoreTransientError."""
        if self._pinned:
            return [PlannedRange(*self._pinned, 0)]
        try:
            size = self._size()
        except Exception as error:
            raise _as_fault(error) from error
        ring = self._session.cluster.metadata.token_map.ring
        return plan((token.value for token in ring), size)

    def _size(self) -> TableSize | None:
        """Ask every node near by: each knows of its own part of the ring only."""
        policy = self._session.get_execution_profile(EXEC_PROFILE_DEFAULT).load_balancing_policy
        statement = self._session.prepare(
            "SELECT range_start, range_end, mean_partition_size, partitions_count "
            "FROM system.size_estimates WHERE keyspace_name = ? AND table_name = ?"
        ).bind((self.source.address.keyspace, self.source.table))
        asked = [
            self._session.execute_async(statement, timeout=_ESTIMATES_TIMEOUT_S, host=host)
            for host in self._session.cluster.metadata.all_hosts()
            if host.is_up and policy.distance(host) == HostDistance.LOCAL
        ]
        estimates = []
        for future in asked:
            try:
                estimates += [SizeEstimate(*map(int, row)) for row in future.result()]
            except DriverException:
                continue  # it is an estimate
        return table_size(estimates)

    def estimated_rows(self, timeout_s: float) -> int | None:
        """Return about how many rows there are, from the first of them; None where that is vague.

        Raises a StoreFault where they cannot be read.
        """
        if self.source.where:
            return None
        bound = self._bound(WHOLE_RING, _SAMPLE_ROWS)
        try:
            result = self._session.execute(bound, timeout=timeout_s)
        except Exception as error:
            raise _as_fault(error) from error
        rows = result.current_rows
        if result.paging_state is None:
            return len(rows)
        if not rows or rows[0][0] == rows[-1][0]:
            return None  # one large partition says nothing of the others
        return int(len(rows) * (RING / (rows[-1][0] - MIN_TOKEN)))

    # The rows

    def pages(
        self, tokens: TokenRange, call: Call = once, now_us: Callable[[], int] = no_time
    ) -> Iterator[Page]:
        """Yield the rows of a range in pages; a page that `call` gives up on raises its error.

        A page that did not come is asked for again where the one before it ended: no row comes
        twice, none is missed. While one page is worked on the next one is under way.
        """
        if self._pinned and not tokens.start < self._pinned.end <= tokens.end:
            return
        cursor = _Cursor(self, tokens, now_us)
        while True:
            page = call(cursor.fetch)
            if not page.last and self._rate is None:
                cursor.ask_ahead()
            yield page
            if page.last:
                return

    def chunks(self, tokens: TokenRange, call: Call = once) -> Iterator[Chunk[Any]]:
        """Yield the rows of a range, without their tokens in them."""
        for page in self.pages(tokens, call):
            if page.rows:
                yield Chunk(0, [row[0] for row in page.rows], [row[1:] for row in page.rows])

    def close(self) -> None:
        """Close the session."""
        self._session.cluster.shutdown()


class _Cursor:
    """Where a reader of one range is."""

    def __init__(self, reader: TableReader, tokens: TokenRange, now_us: Callable[[], int]) -> None:
        self._reader = reader
        self._tokens = tokens
        self._now_us = now_us
        self._state: bytes | None = None
        self._asked: tuple[int, Any] | None = None
        self._fetch_rows = reader.source.fetch_rows
        if reader.source.rows_s:  # no more than a second's worth at once
            self._fetch_rows = min(self._fetch_rows, math.ceil(reader.source.rows_s))

    def fetch(self) -> Page:
        """Return the next page. Raises a StoreFault, after which it may be called again."""
        asked, self._asked = self._asked, None
        try:
            t_us, future = asked or self._ask()
            result = future.result()
        except Exception as error:
            if isinstance(error, OperationTimedOut | Timeout):
                # A page that is too much for the nodes in their time may be smaller.
                least = min(self._fetch_rows, _LEAST_FETCH_ROWS)
                self._fetch_rows = max(least, self._fetch_rows // 2)
            raise _as_fault(error) from error
        rows = result.current_rows
        self._state = result.paging_state
        if rate := self._reader._rate:
            rate.give_back(self._fetch_rows - len(rows))
        return Page(t_us, rows, self._state is None)

    def ask_ahead(self) -> None:
        """Ask for the next page; what goes wrong is met when it is fetched."""
        try:
            self._asked = self._ask()
        except Exception:
            self._asked = None

    def _ask(self) -> tuple[int, Any]:
        reader = self._reader
        if reader._rate:
            reader._rate.take(self._fetch_rows)
        bound = reader._bound(self._tokens, self._fetch_rows)
        t_us = self._now_us()
        return t_us, reader._session.execute_async(
            bound, timeout=PAGE_TIMEOUT_S, paging_state=self._state
        )


def _as_fault(error: Exception) -> Exception:
    """Tell what an error means; raises what is none of the driver's."""
    if not is_drivers(error):
        raise error
    return fault(error)


def _quoted(name: str) -> str:
    escaped = name.replace('"', '""')
    return f'"{escaped}"'
