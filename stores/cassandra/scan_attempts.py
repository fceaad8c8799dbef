"""Scan the attempts: whole learners, with the time before which none of their rows was read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from group_scores.scores import ActivityKey, StoredAttempt
from group_scores.stores.cassandra.address import CassandraSourceAddress
from group_scores.stores.cassandra.cluster_time import ClusterTime
from group_scores.stores.cassandra.identity import identity
from group_scores.stores.cassandra.ranges import TokenRange
from group_scores.stores.cassandra.schema import ATTEMPTS, check_attempts
from group_scores.stores.cassandra.table_reader import (
    FETCH_ROWS,
    Call,
    Chunk,
    Page,
    Row,
    TableReader,
    TableSource,
    once,
)
from group_scores.stores.clock import ClusterClock

_COLUMNS = (
    *("course_id", "user_id", "batch_id"),
    *("content_id", "attempt_id", "last_attempted_on", "total_score", "total_max_score"),
)

Learner = tuple[ActivityKey, list[StoredAttempt]]
"""A learner in a batch of a course, and every attempt that the table has of that."""


def attempts_source(address: CassandraSourceAddress, fetch_rows: int = FETCH_ROWS) -> TableSource:
    """Return what is read of the attempts table: never the answers, which are most of it."""
    where = (("course_id", address.course), ("batch_id", address.batch))
    return TableSource(
        address.cluster,
        ATTEMPTS,
        _COLUMNS,
        tuple((name, value) for name, value in where if value is not None),
        address.rows_s,
        fetch_rows,
    )


class AttemptsReader(TableReader):
    """Reads the attempts of a live cluster, under each primary key that is found in the field.

    A source is an `attempts_source`. Only the attempts table has to be there.
    """

    def _open(self) -> None:
        super()._open()
        self._clock = ClusterClock(ClusterTime(self._session, self.source.address).now_us)

    def _check(self, keyspace: Any) -> None:
        check_attempts(keyspace, _COLUMNS)

    def chunks(self, tokens: TokenRange, call: Call = once) -> Iterator[Chunk[Learner]]:
        """Yield the learners of a range. Each is whole, and in one chunk."""
        return whole_learners(self.pages(tokens, call, self._clock.now_us))

    @property
    def cluster(self) -> str:
        """Where the attempts are, to be compared with that of a `Store`."""
        return identity(self._session, self.source.address.keyspace)


def whole_learners(pages: Iterable[Page]) -> Iterator[Chunk[Learner]]:
    """Put rows together that lie next to each other, over the ends of pages too.

    A learner whose rows go on in the next page is held back. A chunk has the time of the page in
    which its first learner begins.
    """
    held: tuple[int, int, Learner] | None = None
    for page in pages:
        t_us = page.t_us
        tokens: list[int] = []
        learners: list[Learner] = []
        if held:
            t_us, token, learner = held
            tokens.append(token)
            learners.append(learner)
        _add(page.rows, tokens, learners)
        held = None
        if learners and not page.last:
            begun_us = t_us if len(learners) == 1 else page.t_us
            held = (begun_us, tokens.pop(), learners.pop())
        if learners:
            yield Chunk(t_us, tokens, learners)


def _add(rows: Iterable[Row], tokens: list[int], learners: list[Learner]) -> None:
    """Add rows to the learners, the last of whom may go on. Written out: it is most of a scan."""
    course = user = batch = None
    append = None
    if learners:
        (course, user, batch), attempts = learners[-1]
        append = attempts.append
    for token, row_course, row_user, row_batch, content, attempt, on_ms, score, most in rows:
        if append is None or row_user != user or row_batch != batch or row_course != course:
            course, user, batch = row_course, row_user, row_batch
            begun: list[StoredAttempt] = []
            append = begun.append
            tokens.append(token)
            learners.append((ActivityKey(course, user, batch), begun))
        append(StoredAttempt(content, attempt, on_ms, score, most))
