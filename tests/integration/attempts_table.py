"""An attempts table for the tests of its scans: filled as other jobs fill it, read by a SELECT."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable
from typing import Any, NamedTuple

from cassandra.concurrent import execute_concurrent_with_args

from group_scores.stores.cassandra import CassandraSourceAddress
from group_scores.stores.cassandra.session import connect
from group_scores.transforms.elements import AttemptsPage
from tests.servers.cassandra_server import CassandraServer

COLUMNS = (
    *("course_id", "user_id", "batch_id", "content_id", "attempt_id"),
    *("last_attempted_on", "total_score", "total_max_score"),
)


class AttemptRow(NamedTuple):
    """One row; the last three are null at times."""

    course: str
    user: str
    batch: str
    content: str = "content"
    attempt: str = "attempt"
    attempted_on_ms: int | None = 1_760_000_000_000
    score: float | None = 1.5
    max_score: float | None = 2.0


def some_rows(learners: int, courses: int = 3, seed: int = 1) -> list[AttemptRow]:
    """Return rows of so many learners, of 1 to 7 attempts in each of 1 to 2 batches of a course."""
    draw = random.Random(seed)
    return [
        AttemptRow(
            f"course-{learner % courses}",
            f"user-{learner}",
            f"batch-{batch}",
            f"content-{number % 2}",
            f"attempt-{number}",
            draw.choice([None, 1_760_000_000_000 + number]),
            draw.choice([None, math.nan, math.inf, -0.0, 0.5, 7.0]),
            draw.choice([None, math.nan, 10.0]),
        )
        for learner in range(learners)
        for batch in range(draw.randint(1, 2))
        for number in range(draw.randint(1, 7))
    ]


def fill(session: Any, keyspace: str, rows: Iterable[AttemptRow]) -> None:
    """Write the rows."""
    statement = session.prepare(
        f"INSERT INTO {keyspace}.assessment_aggregator ({', '.join(COLUMNS)}) "
        f"VALUES ({', '.join('?' * len(COLUMNS))})"
    )
    execute_concurrent_with_args(session, statement, rows, concurrency=100)


def address_of(cassandra: CassandraServer, keyspace: str, options: str = "") -> str:
    """Return the address of a source."""
    return f"cassandra://{cassandra.host}:{cassandra.port}/{keyspace}{options}"


def selected(address: str, where: str = "") -> list[str]:
    """Return every row of a plain SELECT, as text that tells NaN from null, sorted."""
    session = connect(CassandraSourceAddress.parse(address).cluster)
    keyspace = CassandraSourceAddress.parse(address).cluster.keyspace
    try:
        query = f"SELECT {', '.join(COLUMNS)} FROM {keyspace}.assessment_aggregator {where}"
        return sorted(repr(tuple(row)) for row in session.execute(query, timeout=60))
    finally:
        session.cluster.shutdown()


def as_selected(pages: Iterable[AttemptsPage]) -> list[str]:
    """Return the rows of the pages in the same form; no learner may be in two of them."""
    learners = [learner for page in pages for learner in page.learners]
    assert len({learner.key for learner in learners}) == len(learners)
    return sorted(
        repr(
            (
                *learner.key,
                one.content_id,
                one.attempt_id,
                one.last_attempted_on_ms,
                one.total_score,
                one.total_max_score,
            )
        )
        for learner in learners
        for one in learner.attempts
    )
