"""WriteToCassandra: rows of any table, a bundle's many in few statements."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import apache_beam as beam

from group_scores.stores.cassandra.address import CassandraAddress
from group_scores.stores.cassandra.table_writer import TableRow, TableTarget, TableWriter
from group_scores.stores.errors import StoreFault
from group_scores.transforms.batching import BatchingDoFn, BatchSize
from group_scores.transforms.cassandra.read import as_address
from group_scores.transforms.resources import shared
from group_scores.transforms.retry import Retry


@dataclass
class WriteToCassandra(beam.PTransform):
    """Insert or update rows: dictionaries by column, or tuples in the order of `columns`.

    Without `columns` all of the table's are written; a column that a dictionary lacks is left as
    it is, None deletes its value. A bundle that fails is delivered again, and its rows are written
    again. A row that Cassandra refuses fails the bundle.
    """

    address: CassandraAddress | str
    table: str
    columns: tuple[str, ...] = ()
    retry: Retry = Retry()
    size: BatchSize = BatchSize()

    def expand(self, rows: beam.PCollection) -> beam.PCollection:
        """Row -> int, how many rows were written together; they are when it comes."""
        target = TableTarget(as_address(self.address), self.table, tuple(self.columns))
        write = _WriteFn(target, self.retry, self.size)
        return rows | "Write" >> beam.ParDo(write).with_output_types(int)


class _WriteFn(BatchingDoFn[TableRow]):
    def __init__(self, target: TableTarget, retry: Retry, size: BatchSize) -> None:
        super().__init__("WriteToCassandra", size)
        self._target = target
        self._retry = retry

    def flush(self, batch: list[TableRow]) -> Iterator[int]:
        writer = self._retry.call(lambda: shared(TableWriter, self._target))
        write_rows(writer, batch, self._retry)
        yield len(batch)


def write_rows(writer: TableWriter, rows: Sequence[TableRow], retry: Retry) -> None:
    """Write all rows; raises the fault of one that is not written."""

    def write(todo: list[TableRow], _: int) -> Sequence[StoreFault | None]:
        return writer.write(todo)

    for outcome in retry.each(rows, write):
        if isinstance(outcome, StoreFault):
            raise outcome
