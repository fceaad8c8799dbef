"""Rows that other jobs wrote, with values that this pipeline would never write."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any

import pytest

from group_scores.scores import ActivityKey, StoredAttempt, best_scores
from group_scores.stores import AggregateRow, AttemptsRead
from tests.backends import NEW, OLDEST, CassandraBackend, backend_of
from tests.values import NOW_US, attempt, new_key, update, write

FAR_PAST_MS = -(2**63) + 1
FAR_FUTURE_MS = 2**63 - 1
BEYOND_PYTHON_MS = 253_402_300_800_000  # the year 10000


@pytest.fixture(scope="module", params=[NEW, OLDEST], ids=str)
def backend(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[CassandraBackend]:
    with backend_of(request.param, request, tmp_path_factory.mktemp("store")) as made:
        yield made


@pytest.fixture
def key() -> ActivityKey:
    return new_key()


def insert_attempt(backend: CassandraBackend, key: ActivityKey, **columns: Any) -> None:
    """Insert as another job does: with the time of the server's clock."""
    row = {
        "user_id": key.user_id,
        "course_id": key.course_id,
        "batch_id": key.batch_id,
        "content_id": "content",
        "attempt_id": "attempt",
        **columns,
    }
    backend.execute(
        f"INSERT INTO {{ks}}.assessment_aggregator ({', '.join(row)}) "
        f"VALUES ({', '.join(['%s'] * len(row))})",
        tuple(row.values()),
    )


def stored(backend: CassandraBackend, key: ActivityKey) -> list[StoredAttempt]:
    (read,) = backend.store.read_attempts([key], for_writing=True)
    assert isinstance(read, AttemptsRead), read
    return read.attempts


class TestAttempts:
    def test_with_nothing_but_its_key(self, backend: CassandraBackend, key: ActivityKey) -> None:
        insert_attempt(backend, key)
        assert stored(backend, key) == [
            StoredAttempt("content", "attempt", None, None, None, None, False)
        ]
        (row,) = backend.rows("attempts", key)
        assert row["question"] == []
        assert {row[name] for name in ("created_on", "total_score", "grand_total")} == {None}

    @pytest.mark.parametrize("score", [math.nan, math.inf, -math.inf])
    def test_with_a_score_that_is_no_number(
        self, backend: CassandraBackend, key: ActivityKey, score: float
    ) -> None:
        insert_attempt(backend, key, total_score=score, total_max_score=score, attempt_id="odd")
        assert backend.store.write_attempts([write(attempt(key, "good"))]) == [None]
        assert best_scores(stored(backend, key))["content"].attempt_id == "good"
        odd = next(row for row in backend.rows("attempts", key) if row["attempt_id"] == "odd")
        assert (odd["total_score"], odd["total_max_score"]) == (None, None)
        json.dumps(odd, allow_nan=False)

    @pytest.mark.parametrize("time_ms", [FAR_PAST_MS, FAR_FUTURE_MS, BEYOND_PYTHON_MS, -1, 0])
    def test_with_a_time_of_no_calendar(
        self, backend: CassandraBackend, key: ActivityKey, time_ms: int
    ) -> None:
        insert_attempt(
            backend, key, last_attempted_on=time_ms, created_on=time_ms, updated_on=time_ms
        )
        backend.execute(
            "UPDATE {ks}.assessment_aggregator SET question = "
            f"[{{id: 'q', assess_ts: {time_ms}, duration: 1.50}}] WHERE user_id = %s "
            "AND course_id = %s AND batch_id = %s AND content_id = %s AND attempt_id = %s",
            (key.user_id, key.course_id, key.batch_id, "content", "attempt"),
        )
        (found,) = stored(backend, key)
        assert found.last_attempted_on_ms == time_ms
        assert found.has_created_on
        (row,) = backend.rows("attempts", key)
        times = ("created_on", "last_attempted_on", "updated_on")
        assert [row[name] for name in times] == [time_ms] * 3
        (answer,) = row["question"]
        assert (answer["assess_ts"], answer["duration"]) == (time_ms, 1.5)
        assert (answer["resvalues"], answer["title"]) == (None, None)

    def test_created_on_of_an_earlier_job_is_never_replaced(
        self, backend: CassandraBackend, key: ActivityKey
    ) -> None:
        insert_attempt(backend, key, created_on=4_000, last_attempted_on=5_000)
        (before,) = stored(backend, key)
        assert before.has_created_on
        assert before.write_us is not None
        for now_us in (NOW_US, 1_000):
            newer = write(attempt(key), write_us=before.write_us + 1000, now_us=now_us)
            assert backend.store.write_attempts([newer]) == [None]
        (row,) = backend.rows("attempts", key)
        assert row["created_on"] == 4_000
        assert row["last_attempted_on"] == 1_760_000_000_000

    def test_write_time_is_what_the_next_one_has_to_beat(
        self, backend: CassandraBackend, key: ActivityKey
    ) -> None:
        insert_attempt(backend, key, last_attempted_on=5_000, total_score=9.0)
        (before,) = stored(backend, key)
        assert before.write_us is not None
        older = write(attempt(key, total_score=1.0), write_us=before.write_us - 1)
        assert backend.store.write_attempts([older]) == [None]
        assert stored(backend, key)[0].total_score == 9.0
        newer = write(attempt(key, total_score=1.0), write_us=before.write_us + 1)
        assert backend.store.write_attempts([newer]) == [None]
        assert stored(backend, key)[0].total_score == 1.0


class TestAggregates:
    where = (
        "WHERE activity_type = 'Course' AND activity_id = %s AND user_id = %s AND context_id = %s"
    )

    def parts(self, key: ActivityKey) -> tuple[str, str, str]:
        return key.course_id, key.user_id, key.context_id

    def test_with_null_maps(self, backend: CassandraBackend, key: ActivityKey) -> None:
        backend.execute(
            "INSERT INTO {ks}.user_activity_agg (activity_type, activity_id, user_id, context_id) "
            "VALUES ('Course', %s, %s, %s)",
            self.parts(key),
        )
        assert backend.store.read_aggregates([key]) == [AggregateRow({}, {}, {}, [])]
        (row,) = backend.rows("aggregates", key)
        collections = {name: row[name] for name in row if name.startswith("agg")}
        assert collections.pop("agg_details", []) == []
        assert all(value == {} for value in collections.values())
        assert backend.store.write_aggregates([update(key, {"score": 1.0})]) == [None]
        assert backend.store.read_aggregates([key])[0].agg == {"score": 1}  # type: ignore[union-attr]

    @pytest.mark.parametrize("time_ms", [FAR_PAST_MS, FAR_FUTURE_MS, BEYOND_PYTHON_MS])
    def test_with_a_time_of_no_calendar(
        self, backend: CassandraBackend, key: ActivityKey, time_ms: int
    ) -> None:
        cells = f"agg = {{'completedCount': 3}}, agg_last_updated = {{'completedCount': {time_ms}}}"
        backend.execute(
            "UPDATE {ks}.user_activity_agg SET " + f"{cells} {self.where}", self.parts(key)
        )
        row, other = backend.store.read_aggregates([key, new_key()])
        assert isinstance(row, AggregateRow)
        assert isinstance(other, AggregateRow)
        assert row.agg_last_updated_ms == {"completedCount": time_ms}
        (scanned,) = backend.rows("aggregates", key)
        assert scanned["agg_last_updated"] == {"completedCount": time_ms}

    def test_map_that_was_overwritten_whole(
        self, backend: CassandraBackend, key: ActivityKey
    ) -> None:
        """The job that rewrites whole maps deletes what is older than its write, and only that."""
        store = backend.store
        assert store.write_aggregates([update(key, {"old": 1.0}, 1_000)]) == [None]
        backend.execute(
            "UPDATE {ks}.user_activity_agg USING TIMESTAMP 2000 "
            f"SET agg = {{'whole': 2}} {self.where}",
            self.parts(key),
        )
        assert store.write_aggregates([update(key, {"late": 9.0}, 1_500)]) == [None]
        assert store.write_aggregates([update(key, {"new": 3.0}, 3_000)]) == [None]
        (row,) = store.read_aggregates([key])
        assert isinstance(row, AggregateRow)
        assert row.agg == {"whole": 2, "new": 3}

    def test_other_activities_are_not_ours(
        self, backend: CassandraBackend, key: ActivityKey
    ) -> None:
        backend.execute(
            "UPDATE {ks}.user_activity_agg SET agg = {'completedCount': 3} "
            f"{self.where.replace('Course', 'Program')}",
            self.parts(key),
        )
        assert backend.store.read_aggregates([key]) == [AggregateRow({}, {}, {}, [])]
        assert backend.rows("aggregates", key) == []
