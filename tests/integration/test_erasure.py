"""A learner's erasure, as docs/operations.md has it: its own statements, on both keys."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from group_scores.scores import ActivityKey
from group_scores.stores import AttemptsRead
from tests.backends import NEW, OLD_KEY, CassandraBackend, backend_of
from tests.values import attempt, new_key, update, write

TEXT = (Path(__file__).parents[2] / "docs/operations.md").read_text()
SECTION = TEXT.partition("## A learner's erasure")[2].partition("\n## ")[0]
SELECT, *DELETES = re.findall(r"(SELECT batch_id[^;]*|DELETE FROM[^;]*);", SECTION)
YEARS_MS = 3 * 365 * 86_400_000


@pytest.fixture(scope="module", params=[NEW, OLD_KEY], ids=str)
def backend(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[CassandraBackend]:
    with backend_of(request.param, request, tmp_path_factory.mktemp("store")) as made:
        yield made


class Erasure:
    """The guide's steps for one learner."""

    def __init__(self, backend: CassandraBackend, key: ActivityKey) -> None:
        self.backend = backend
        self.key = key

    def filled(self, statement: str, time_us: int = 0) -> str:
        key = self.key
        if "assessment_aggregator" in statement and self.backend.shape.attempts_key == "course":
            if statement.startswith("DELETE"):
                told = re.search(r"the first one is `(WHERE .*?)`", SECTION, re.DOTALL)
                assert told is not None
                statement = statement.partition("WHERE")[0] + told[1]
            else:
                told = re.search(r"add `(AND batch_id = 'B')`", SECTION)
                assert told is not None
                statement += f" {told[1]}"
        statement = statement.replace("sunbird_courses", "{ks}")
        statement = statement.replace("TIMESTAMP T", f"TIMESTAMP {time_us}")
        for letter, value in (("U", key.user_id), ("C", key.course_id), ("B", key.batch_id)):
            statement = statement.replace(f"'{letter}'", f"'{value}'")
        return statement

    def greatest_us(self) -> int:
        rows = self.backend.execute(self.filled(SELECT))
        return max(time_us for row in rows for time_us in row[3:] if time_us is not None)

    def delete(self, time_us: int) -> None:
        for statement in DELETES:
            self.backend.execute(self.filled(statement, time_us))

    def left(self) -> int:
        return len(self.backend.rows("attempts", self.key)) + len(
            self.backend.rows("aggregates", self.key)
        )


def test_an_erased_learner_stays_erased(backend: CassandraBackend) -> None:
    now_us = backend.store.now_us()
    key, other = new_key(), new_key()
    # The first device's clock is right, the second one's years ahead.
    tries = [
        write(attempt(key, name, last_attempted_on_ms=now_us // 1000 + ahead_ms), now_us=now_us)
        for name, ahead_ms in (("right", 0), ("ahead", YEARS_MS))
    ]
    row = update(key, {"score:content": 1.5}, t_us=now_us)
    assert backend.store.write_attempts([*tries, write(attempt(other))]) == [None] * 3
    assert backend.store.write_aggregates([row, update(other, {"score:content": 1})]) == [None] * 2
    erasure = Erasure(backend, key)
    assert erasure.left() == 3
    # With the time of now it is what the guide warns of.
    erasure.delete(time.time_ns() // 1000)
    assert [row["attempt_id"] for row in backend.rows("attempts", key)] == ["ahead"]
    time_us = max(erasure.greatest_us(), time.time_ns() // 1000 + 10_000_000) + 1000
    assert time_us > now_us + YEARS_MS * 1000
    erasure.delete(time_us)
    assert erasure.left() == 0
    # The same events once more, from the topic or the dead letters.
    assert backend.store.write_attempts(tries) == [None] * 2
    (read,) = backend.store.read_attempts([key], for_writing=True)
    assert isinstance(read, AttemptsRead)
    assert read.attempts == []
    assert erasure.left() == 0
    assert Erasure(backend, other).left() == 2
