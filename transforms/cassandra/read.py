"""ReadFromCassandra: a table by token ranges, as a splittable DoFn around the plain reader.

A restriction is a range of tokens and nothing else. The ranges come from the cluster's own, cut by
its size estimates; a shuffle spreads them over the workers, and a runner may split each further
while it is read.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import apache_beam as beam
from apache_beam.metrics import Metrics

from group_scores.stores.cassandra.address import CassandraAddress
from group_scores.stores.cassandra.table_reader import (
    FETCH_ROWS,
    Chunk,
    Row,
    TableReader,
    TableSource,
)
from group_scores.transforms.cassandra.tracker import RangeElement, TokenRanges
from group_scores.transforms.collector import settle
from group_scores.transforms.metrics import NAMESPACE
from group_scores.transforms.progress import Progress
from group_scores.transforms.residuals import loses_what_is_handed_back
from group_scores.transforms.resources import shared
from group_scores.transforms.retry import Retry

OpenReader = Callable[[TableSource], TableReader]

_TRACKER = beam.DoFn.RestrictionParam(TokenRanges())


@dataclass
class ReadFromCassandra(beam.PTransform):
    """Read columns of the rows of a table, all of them without `columns`; a page an element.

    With `where` only the rows whose columns equal these values: of one partition, where they are
    its key, or else filtered by the nodes. `rows_s` is how many rows a second a worker process
    reads at most. Timestamps are epoch ms, and other values as the driver gives them.

    Rows of one partition are in the order of the table and the pages are not; rows that are
    written meanwhile may be in it or not. A node that is away is waited for by `retry`. With
    `turn_rows` the rest of a range is handed back to the runner after so many rows.
    """

    address: CassandraAddress | str
    table: str
    columns: tuple[str, ...] = ()
    where: Mapping[str, Any] = field(default_factory=dict)
    retry: Retry = Retry()
    rows_s: float | None = None
    fetch_rows: int = FETCH_ROWS
    turn_rows: int | None = None
    progress: Progress = Progress()

    def expand(self, root: beam.pvalue.PBegin) -> beam.PCollection:
        """Nothing -> list of tuples, in the order of `columns`."""
        source = TableSource(
            as_address(self.address),
            self.table,
            tuple(self.columns),
            tuple(self.where.items()),
            self.rows_s,
            self.fetch_rows,
        )
        read = ReadRangesFn(
            TableReader, source, self.retry, _Rows(), self.progress, turn_rows=self.turn_rows
        )
        return read_ranges(root, read, list[tuple[Any, ...]])


def as_address(address: CassandraAddress | str) -> CassandraAddress:
    """Return the address, parsed where it is text; raises AddressError."""
    return CassandraAddress.parse(address) if isinstance(address, str) else address


def read_ranges(root: beam.pvalue.PBegin, read: ReadRangesFn, gives: Any) -> beam.PCollection:
    """Apply the read of all ranges of a table."""
    if loses_what_is_handed_back(root.pipeline):
        read.turn_rows = None
    ranges = _RangesFn(read.open_reader, read.source, read.retry, read.progress)
    return (
        root
        | "Now" >> beam.Impulse()
        | "Ranges" >> beam.ParDo(ranges).with_output_types(RangeElement)
        | "Spread" >> beam.Reshuffle()
        | "Rows" >> beam.ParDo(read).with_output_types(gives)
    )


class PageMaker:
    """Makes an element of some items, and knows how many rows they are."""

    counter: str
    """What the rows are counted by."""

    def make(self, t_us: int, items: list[Any]) -> Any:
        """Return the element."""
        raise NotImplementedError

    def rows(self, items: list[Any]) -> int:
        """Return the number of rows."""
        raise NotImplementedError


class _Rows(PageMaker):
    counter = "rows_read"

    def make(self, t_us: int, items: list[Row]) -> list[Row]:
        return items

    def rows(self, items: list[Row]) -> int:
        return len(items)


class _RangesFn(beam.DoFn):
    """Find out what there is to read, on the worker and when the run starts."""

    def __init__(
        self, open_reader: OpenReader, source: TableSource, retry: Retry, progress: Progress
    ) -> None:
        self._open_reader = open_reader
        self._source = source
        self._retry = retry
        self._progress = progress

    def process(self, _: bytes) -> Iterator[RangeElement]:
        ranges = self._retry.call(lambda: shared(self._open_reader, self._source).ranges())
        self._progress.plan(len(ranges))
        yield from ranges


class ReadRangesFn(beam.DoFn):
    """Read a range of tokens."""

    def __init__(
        self,
        open_reader: OpenReader,
        source: TableSource,
        retry: Retry,
        maker: PageMaker,
        progress: Progress,
        *,
        turn_rows: int | None = None,
    ) -> None:
        self.open_reader = open_reader
        self.source = source
        self.retry = retry
        self.turn_rows = turn_rows
        self._maker = maker
        self.progress = progress
        self._rows = Metrics.counter(NAMESPACE, maker.counter)
        self._ranges = Metrics.counter(NAMESPACE, "ranges_read")

    def setup(self) -> None:
        settle()

    def process(self, element: RangeElement, tracker: Any = _TRACKER) -> Iterator[Any]:
        reader = self.retry.call(lambda: shared(self.open_reader, self.source))
        tokens = tracker.current_restriction()
        turn = _Turn(tracker, tokens.start, self.turn_rows)
        for chunk in reader.chunks(tokens, self.retry.call):
            items = turn.claim(chunk)
            if items:
                rows = self._maker.rows(items)
                turn.rows += rows
                self._rows.inc(rows)
                self.progress.add(rows)
                yield self._maker.make(chunk.t_us, items)
            if turn.over:
                break
        turn.finish()
        self._ranges.inc()
        start, end, _ = element  # of all of it: what was split off is told by whoever reads that
        self.progress.add_range(tracker.current_restriction().size / max(1, end - start))


class _Turn:
    """One call of `process`: what of its range it has claimed, and whether it goes on."""

    def __init__(self, tracker: Any, start: int, most_rows: int | None) -> None:
        self.rows = 0
        self.over = False
        self._tracker = tracker
        self._claimed = start
        self._most_rows = most_rows
        self._deferred = False

    def claim(self, chunk: Chunk[Any]) -> list[Any]:
        """Claim a chunk up to the end that the range has now, and return the items that it may.

        All at once: a claim costs more than a row. The end may move while this asks for it.
        """
        tokens = chunk.tokens
        while True:
            count = bisect_right(tokens, self._end())
            if count == 0 or tokens[count - 1] == self._claimed:
                break
            if self._tracker.try_claim(tokens[count - 1]):
                self._claimed = tokens[count - 1]
                break
        self.over = count < len(tokens)
        return chunk.items[:count]

    def _end(self) -> int:
        """Return the last token to read: that of a partition that has begun, when a turn ends."""
        if self._most_rows is not None and self.rows >= self._most_rows:
            self._deferred = True
            return self._claimed
        return int(self._tracker.current_restriction().end)

    def finish(self) -> None:
        """Hand the rest back, or claim the tokens behind the last row."""
        if self.over and self._deferred:
            self._tracker.defer_remainder()
            return
        while (end := self._tracker.current_restriction().end) > self._claimed:
            if self._tracker.try_claim(end):
                return
