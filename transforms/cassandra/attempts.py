"""ReadAttempts: the attempts of a live or restored cluster, as whole learners."""

from __future__ import annotations

from dataclasses import dataclass

import apache_beam as beam

from group_scores.stores.cassandra.address import CassandraSourceAddress
from group_scores.stores.cassandra.scan_attempts import AttemptsReader, Learner, attempts_source
from group_scores.stores.cassandra.table_reader import FETCH_ROWS
from group_scores.transforms.cassandra.read import PageMaker, ReadRangesFn, read_ranges
from group_scores.transforms.elements import AttemptsPage, LearnerAttempts
from group_scores.transforms.progress import Progress
from group_scores.transforms.retry import Retry


@dataclass
class ReadAttempts(beam.PTransform):
    """Read every attempt of the address's course and batch, of all of them where it names none.

    With a time in the address all of them are as of then. Under both primary keys the attempts of
    a learner in a batch lie next to each other, so that nothing is shuffled. A partition is read as
    a stream, however large it is. `fetch_rows` is how many rows a request brings; with `turn_rows`
    the rest of a range is handed back to the runner after so many.
    """

    address: CassandraSourceAddress
    retry: Retry = Retry()
    progress: Progress = Progress()
    fetch_rows: int = FETCH_ROWS
    turn_rows: int | None = None

    def expand(self, root: beam.pvalue.PBegin) -> beam.PCollection:
        """Nothing -> AttemptsPage; a learner in a batch is in one of them."""
        source = attempts_source(self.address, self.fetch_rows)
        read = ReadRangesFn(
            AttemptsReader,
            source,
            self.retry,
            _Pages(self.address.taken_ms),
            self.progress,
            turn_rows=self.turn_rows,
        )
        return read_ranges(root, read, AttemptsPage)


class _Pages(PageMaker):
    counter = "attempts_read"

    def __init__(self, taken_ms: int | None = None) -> None:
        self._taken_ms = taken_ms

    def make(self, t_us: int, items: list[Learner]) -> AttemptsPage:
        if self._taken_ms is not None:
            t_us = self._taken_ms * 1000
        return AttemptsPage(t_us, [LearnerAttempts(*learner) for learner in items])

    def rows(self, items: list[Learner]) -> int:
        return sum(len(attempts) for _, attempts in items)
