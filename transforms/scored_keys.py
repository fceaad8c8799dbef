"""ScoredKeys: the rows of the aggregates that hold anything of ours, page by page."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import dropwhile, islice
from typing import Any

import apache_beam as beam

from group_scores.scores import METRICS, ActivityKey
from group_scores.stores import Selection, ServiceUnavailableError, Store, StoreConfig
from group_scores.transforms.elements import encode_key
from group_scores.transforms.progress import Progress
from group_scores.transforms.resources import shared_store
from group_scores.transforms.retry import Retry

_KEY = ("activity_id", "user_id", "context_id")
_PAGE_ROWS = 1_000
Row = tuple[Any, ...]
"""The key, then each map of values, then the list of details where it is kept."""


def scored_keys(rows: Iterable[Row], metrics: Collection[str]) -> Iterator[ActivityKey]:
    """Yield the keys of the rows that have anything of ours."""
    prefixes = tuple(f"{metric}:" for metric in metrics)
    for course, user, context, *collections in rows:
        if context.startswith("cb:") and any(_is_ours(one, prefixes) for one in collections):
            yield ActivityKey(course, user, context.removeprefix("cb:"))


def _is_ours(collection: Any, prefixes: tuple[str, ...]) -> bool:
    if isinstance(collection, Mapping):
        return any(name.startswith(prefixes) for name in collection)
    return bool(collection)


def columns_of(store: Store) -> tuple[str, ...]:
    """Return what is read of a row: what the store writes, but for the times."""
    return (*_KEY, *store.value_maps, *(("agg_details",) if store.wants_details else ()))


class ScanPages:
    """A scan in the order of the keys, some rows at a time."""

    def __init__(self, store: Store, selection: Selection, page_rows: int = _PAGE_ROWS) -> None:
        self._store = store
        self._selection = selection
        self._page_rows = page_rows
        self._columns = columns_of(store)
        self._rows: Iterator[Row] | None = None
        self._last: Row = ()

    def next(self) -> list[Row]:
        """Return the next rows, in the end none.

        Raises ServiceUnavailableError; called again, it goes on behind the last row it returned.
        """
        if self._rows is None:
            self._rows = dropwhile(lambda row: row[: len(_KEY)] <= self._last, self._scan())
        try:
            page = list(islice(self._rows, self._page_rows))
        except ServiceUnavailableError:
            self._rows = None
            raise
        if page:
            self._last = page[-1][: len(_KEY)]
        return page

    def _scan(self) -> Iterator[Row]:
        for row in self._store.scan("aggregates", self._selection):
            yield tuple(row[name] for name in self._columns)


@dataclass
class ScoredKeys(beam.PTransform):
    """Give the key of each row that holds scores: of the whole table, or of a selection.

    A cluster's table is read by token ranges, which are spread over the workers; a worker process
    reads `rows_s` rows a second at most. A file is read by one of them.
    """

    store: StoreConfig
    selection: Selection = Selection()
    metrics: tuple[str, ...] = METRICS
    retry: Retry = Retry()
    rows_s: float | None = None
    progress: Progress = Progress()

    def expand(self, root: beam.pvalue.PBegin) -> beam.PCollection:
        """Nothing -> bytes, an encoded ActivityKey."""
        cluster = self.store.cluster
        if cluster is None:
            scan = beam.ParDo(_ScanFn(self.store, self.selection, self.retry))
            pages = root | "Start" >> beam.Impulse() | "Scan" >> scan.with_output_types(list[Any])
        else:
            pages = root | "Read" >> self._read(cluster)
        return pages | "Ours" >> beam.ParDo(_OursFn(self.metrics)).with_output_types(bytes)

    def _read(self, cluster: Any) -> beam.PTransform:
        # Imported here: an embedded run should not pay for loading the driver.
        from group_scores.stores.cassandra.scan import aggregate_filter
        from group_scores.stores.cassandra.schema import AGGREGATES
        from group_scores.transforms.cassandra import ReadFromCassandra

        return ReadFromCassandra(
            cluster,
            AGGREGATES,
            columns_of(self.retry.call(lambda: shared_store(self.store))),
            aggregate_filter(self.selection),
            self.retry,
            self.rows_s,
            progress=self.progress,
        )


class _ScanFn(beam.DoFn):
    def __init__(self, store: StoreConfig, selection: Selection, retry: Retry) -> None:
        self._store = store
        self._selection = selection
        self._retry = retry

    def process(self, _: bytes) -> Iterator[list[Row]]:
        pages = ScanPages(self._retry.call(lambda: shared_store(self._store)), self._selection)
        while page := self._retry.call(pages.next):
            yield page


class _OursFn(beam.DoFn):
    def __init__(self, metrics: tuple[str, ...]) -> None:
        self._metrics = metrics

    def process(self, page: list[Row]) -> Iterator[bytes]:
        return map(encode_key, scored_keys(page, self._metrics))
