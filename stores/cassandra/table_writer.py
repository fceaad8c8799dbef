"""Write rows of any table, many to a statement; knows no Beam."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from group_scores.stores.address import did_you_mean
from group_scores.stores.cassandra.address import CassandraAddress
from group_scores.stores.cassandra.faults import is_drivers, start_error
from group_scores.stores.cassandra.limits import read_limits
from group_scores.stores.cassandra.packing import Row, batch, fitting, pack_rows, row_size
from group_scores.stores.cassandra.sending import Sender
from group_scores.stores.cassandra.session import connect
from group_scores.stores.errors import AddressError, StoreFault, StoreRefusedError

IN_FLIGHT = 128

TableRow = Mapping[str, Any] | Sequence[Any]
"""The values by column, or in the order of the columns. What a mapping lacks is left as it is."""


@dataclass(frozen=True)
class TableTarget:
    """Which columns of a table are written; without `columns` all of them."""

    address: CassandraAddress
    table: str
    columns: tuple[str, ...] = ()


class TableWriter:
    """Writes rows of a table of a live cluster; threads may share it.

    Raises AddressError or ServiceUnavailableError when it is opened, as the store does.
    """

    def __init__(self, target: TableTarget, *, in_flight: int = IN_FLIGHT) -> None:
        self._session = connect(target.address)
        try:
            self._open(target)
            self._limits = read_limits(self._session)
            self._sender = Sender(self._session, target.address.keyspace, in_flight)
        except BaseException as error:
            self.close()
            if isinstance(error, Exception) and is_drivers(error):
                raise start_error(target.address, error) from None
            raise

    def _open(self, target: TableTarget) -> None:
        keyspace = self._session.cluster.metadata.keyspaces[target.address.keyspace]
        table = keyspace.tables.get(target.table)
        if table is None:
            raise AddressError(
                f"keyspace {keyspace.name!r} has no table {target.table!r}"
                f"{did_you_mean(target.table, keyspace.tables)}"
            )
        self._columns = target.columns or tuple(table.columns)
        for column in self._columns:
            if column not in table.columns:
                raise AddressError(
                    f"table {keyspace.name}.{target.table} has no column {column!r}"
                    f"{did_you_mean(column, table.columns)}"
                )
        for key in table.primary_key:
            if key.name not in self._columns:
                raise AddressError(
                    f"column {key.name!r} is in the primary key of {keyspace.name}.{target.table} "
                    "and has to be written"
                )
        names = ", ".join(f'"{name}"' for name in self._columns)
        values = ", ".join("?" for _ in self._columns)
        self._insert = self._session.prepare(
            f'INSERT INTO "{keyspace.name}"."{target.table}" ({names}) VALUES ({values})'
        )

    def write(self, rows: Sequence[TableRow]) -> list[StoreFault | None]:
        """Insert or update the rows; a row that was not written has its fault in its place.

        Atomic for each row, and a row may be written again; of two writes the later one wins.
        """
        faults: dict[int, StoreFault] = {}
        fit = fitting(self._bound(rows, faults), self._limits, faults)
        groups = pack_rows(fit, self._sender.replica, self._limits)
        for group, outcome in self._sender.send(groups, batch):
            if isinstance(outcome, StoreFault):
                faults.update((row.item, outcome) for row in group)
        return [faults.get(item) for item in range(len(rows))]

    def _bound(self, rows: Sequence[TableRow], faults: dict[int, StoreFault]) -> Iterator[Row]:
        for item, row in enumerate(rows):
            try:
                bound = self._insert.bind(self._values(row))
                partition = bound.routing_key
            except StoreRefusedError as error:
                faults[item] = error
            except Exception as error:  # whatever the codec of a type makes of a wrong value
                faults[item] = StoreRefusedError(f"row {item} cannot be encoded: {error}")
            else:
                values = [value for value in bound.values if isinstance(value, bytes)]
                yield Row(item, partition, row_size(values, len(self._columns), 0, 0), [bound])

    def _values(self, row: TableRow) -> TableRow:
        if isinstance(row, Mapping):
            for name in row:
                if name not in self._columns:
                    raise StoreRefusedError(
                        f"{name!r} is not a column that is written"
                        f"{did_you_mean(name, self._columns)}"
                    )
        elif len(row) != len(self._columns):
            raise StoreRefusedError(
                f"a row has {len(row)} values, and {len(self._columns)} columns are written"
            )
        return row

    def close(self) -> None:
        """Close the session."""
        self._session.cluster.shutdown()
