"""Whatever the order in which writes arrive, a store ends in the state that their times give."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from group_scores.scores import ActivityAgg, ActivityKey, Attempt
from group_scores.scores.aggregate import to_int
from group_scores.stores import AttemptWrite
from tests.backends import NEW, OLDEST, SQLITE, Backend, backend_of
from tests.values import attempts, examples, new_key, scores, times_ms

# From before the epoch to past the clocks of devices that are years ahead, in µs.
write_times = st.integers(-(10**17), 10**17)
WHO = ActivityKey("c", "u", "b")


@pytest.fixture(scope="module", params=[SQLITE, NEW, OLDEST], ids=str)
def backend(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Backend]:
    with backend_of(request.param, request, tmp_path_factory.mktemp("store")) as made:
        yield made


def for_key(key: ActivityKey, what: Attempt) -> Attempt:
    return msgspec.structs.replace(
        what, user_id=key.user_id, course_id=key.course_id, batch_id=key.batch_id
    )


@st.composite
def versions(draw: st.DrawFn) -> list[AttemptWrite]:
    """Versions of a few attempts: write times and clocks drawn, no two times equal."""
    times = draw(st.lists(write_times, min_size=1, max_size=6, unique=True))
    return [
        AttemptWrite(
            msgspec.structs.replace(
                draw(attempts(WHO)),
                content_id="content",
                attempt_id=draw(st.sampled_from(("a", "b"))),
            ),
            write_us,
            now_us=draw(st.integers(1, 10**6)) * 1_000_000,
            create=draw(st.booleans()),
        )
        for write_us in times
    ]


def attempt_rows(writes: Sequence[AttemptWrite]) -> list[dict[str, Any]]:
    """What is to be in the table: of each attempt the latest version, and the first creation."""
    rows = []
    for attempt_id in sorted({write.attempt.attempt_id for write in writes}):
        mine = [write for write in writes if write.attempt.attempt_id == attempt_id]
        last = max(mine, key=lambda write: write.write_us)
        rows.append(
            {
                "attempt_id": attempt_id,
                "created_on": min((w.now_us // 1000 for w in mine if w.create), default=None),
                "updated_on": last.now_us // 1000,
                "last_attempted_on": last.attempt.last_attempted_on_ms,
                "total_score": last.attempt.total_score,
                "total_max_score": last.attempt.total_max_score,
                "grand_total": last.attempt.grand_total,
                "question": [question.id for question in last.attempt.questions],
            }
        )
    return rows


def deliver(backend: Backend, method: str, items: list[Any], together: bool) -> None:
    call = getattr(backend.store, method)
    calls = [items] if together else [[item] for item in items]
    for some in calls:
        assert call(some) == [None] * len(some)


@examples(0.4)
@given(writes=versions(), data=st.data(), together=st.booleans())
def test_attempts(
    backend: Backend, writes: list[AttemptWrite], data: st.DataObject, together: bool
) -> None:
    key = new_key()
    order = data.draw(st.permutations(writes))
    mine = [msgspec.structs.replace(w, attempt=for_key(key, w.attempt)) for w in order]
    deliver(backend, "write_attempts", mine, together)
    expected = attempt_rows(writes)
    found = backend.rows("attempts", key)
    for row in found:
        row["question"] = [question["id"] for question in row["question"]]
    assert [
        {name: row[name] for name in wanted} for row, wanted in zip(found, expected, strict=True)
    ] == expected
    (read,) = backend.store.read_attempts([key], for_writing=True)
    newest = {a: max(w.write_us for w in writes if w.attempt.attempt_id == a) for a in "ab"
              if any(w.attempt.attempt_id == a for w in writes)}  # fmt: skip
    assert {a.attempt_id: a.write_us for a in read.attempts} == newest
    assert {a.attempt_id: a.has_created_on for a in read.attempts} == {
        row["attempt_id"]: row["created_on"] is not None for row in expected
    }


@st.composite
def updates(draw: st.DrawFn) -> list[ActivityAgg]:
    """Updates of one row at different times, of some of its keys, some with the list."""
    return [
        ActivityAgg(
            WHO,
            t_us,
            draw(st.dictionaries(st.sampled_from("wxyz"), scores, min_size=1)),
            draw(st.none() | st.lists(st.text("pq", max_size=2), max_size=3)),
        )
        for t_us in draw(st.lists(times_ms, min_size=1, max_size=6, unique=True))
    ]


@examples(0.4)
@given(drawn=updates(), data=st.data(), together=st.booleans())
def test_aggregates(
    backend: Backend, drawn: list[ActivityAgg], data: st.DataObject, together: bool
) -> None:
    key = new_key()
    foreign_us = data.draw(times_ms)
    backend.put_foreign(key, {"completedCount": 3}, foreign_us)
    mine = [msgspec.structs.replace(agg, key=key) for agg in drawn]
    # One that came through is delivered again; its list is not, that is the caller's to see to.
    again = [
        msgspec.structs.replace(agg, details=None)
        for agg in data.draw(st.lists(st.sampled_from(mine), max_size=2))
    ]
    deliver(backend, "write_aggregates", data.draw(st.permutations(mine + again)), together)

    newest: dict[str, ActivityAgg] = {}
    for agg in sorted(mine, key=lambda agg: agg.t_us):
        newest |= dict.fromkeys(agg.metrics, agg)
    lists = [agg for agg in mine if agg.details is not None]
    (row,) = backend.store.read_aggregates([key])
    values = {name: to_int(agg.metrics[name]) for name, agg in newest.items()}
    assert row.agg == values | {"completedCount": 3}
    assert row.agg_last_updated_ms == {name: agg.t_us // 1000 for name, agg in newest.items()}
    if backend.shape.with_aggregates:
        assert row.aggregates == {name: agg.metrics[name] for name, agg in newest.items()}
    if backend.shape.with_agg_details and lists:
        assert row.details == max(lists, key=lambda agg: agg.t_us).details
    else:
        assert row.details == []
