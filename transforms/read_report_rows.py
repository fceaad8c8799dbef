"""ReadReportRows: the learners of all course batches, from the rows of the aggregates."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import apache_beam as beam
import msgspec

from group_scores.scores.report import report_row
from group_scores.stores import Selection, StoreConfig
from group_scores.stores.aggregate_scan import report_columns
from group_scores.transforms.progress import Progress
from group_scores.transforms.resources import shared_store
from group_scores.transforms.retry import Retry

_PAGE_ROWS = 1_000
_encode = msgspec.msgpack.Encoder().encode
PlacedRow = tuple[bytes, bytes]
"""A course and batch, and the ReportRow of a learner in it, both as MessagePack."""


@dataclass
class ReadReportRows(beam.PTransform):
    """Give each learner of each course batch: of the whole table, or of a selection.

    A cluster's table is read by token ranges, which are spread over the workers; a file is read by
    one of them.
    """

    store: StoreConfig
    selection: Selection = Selection()
    retry: Retry = Retry()
    progress: Progress = Progress()

    def expand(self, root: beam.pvalue.PBegin) -> beam.PCollection:
        """Nothing -> PlacedRow."""
        cluster = self.store.cluster
        columns = report_columns(self.retry.call(lambda: shared_store(self.store)))
        if cluster is None:
            scan = beam.ParDo(_ScanFn(self.store, self.selection, columns, self.progress))
            pages = root | "Start" >> beam.Impulse() | "Scan" >> scan.with_output_types(list[Any])
        else:
            pages = root | "Read" >> self._read(cluster, columns)
        return pages | "Place" >> beam.ParDo(_PlaceFn(columns)).with_output_types(PlacedRow)

    def _read(self, cluster: Any, columns: tuple[str, ...]) -> beam.PTransform:
        # Imported here: an embedded run should not pay for loading the driver.
        from group_scores.stores.cassandra.scan import aggregate_filter
        from group_scores.stores.cassandra.schema import AGGREGATES
        from group_scores.transforms.cassandra import ReadFromCassandra

        where = aggregate_filter(self.selection)
        return ReadFromCassandra(
            cluster, AGGREGATES, columns, where, self.retry, progress=self.progress
        )


class _ScanFn(beam.DoFn):
    def __init__(
        self, store: StoreConfig, selection: Selection, columns: tuple[str, ...], progress: Progress
    ) -> None:
        self._store = store
        self._selection = selection
        self._columns = columns
        self._progress = progress

    def process(self, _: bytes) -> Iterator[list[tuple[Any, ...]]]:
        page = []
        for row in shared_store(self._store).scan("aggregates", self._selection):
            page.append(tuple(row[name] for name in self._columns))
            if len(page) == _PAGE_ROWS:
                self._progress.add(len(page))
                yield page
                page = []
        yield page


class _PlaceFn(beam.DoFn):
    def __init__(self, columns: tuple[str, ...]) -> None:
        self._columns = columns

    def process(self, page: list[tuple[Any, ...]]) -> Iterator[PlacedRow]:
        for values in page:
            row = report_row(dict(zip(self._columns, values, strict=True)))
            if row is not None:
                yield _encode((row.course_id, row.batch_id)), _encode(row)
