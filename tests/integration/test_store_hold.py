"""The quick look at a row: never takes one for right that is not, on every store and shape."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from group_scores.scores import METRICS, ActivityAgg
from group_scores.stores import StoreRefusedError
from tests.backends import NEW, OLDEST, SQLITE, Backend, backend_of
from tests.values import NOW_US, new_key, update


@pytest.fixture(scope="module", params=(SQLITE, NEW, OLDEST), ids=str)
def backend(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Backend]:
    with backend_of(request.param, request, tmp_path_factory.mktemp("store")) as made:
        yield made


def held(backend: Backend, *updates: ActivityAgg) -> list[object]:
    """Ask twice: nothing is changed by it."""
    first = backend.store.hold(updates, METRICS)
    assert backend.store.hold(updates, METRICS) == first
    return list(first)


def test_a_row_holds_what_was_written(backend: Backend) -> None:
    knows = backend.shape.is_cassandra  # SQLite leaves it to `read_aggregates`
    details = ["a", "ü"] if backend.store.wants_details else None
    rows = [
        update(new_key(), {"score:a": 1.5, "max_score:a": 3e9, "score:ü": -2.0}, NOW_US, details)
        for _ in range(40)
    ]
    backend.put_foreign(rows[3].key, {"completedCount": 2}, NOW_US)
    assert backend.store.write_aggregates(rows) == [None] * 40
    assert held(backend, *rows) == [knows] * 40
    assert held(backend, rows[0], rows[0]) == [knows] * 2
    assert held(backend, update(new_key(), {})) == [knows]


def test_a_row_that_differs_does_not(backend: Backend) -> None:
    key = new_key()
    written = {"score:a": 1.0, "score:b": 2.0}
    assert backend.store.write_aggregates([update(key, written)]) == [None]
    assert held(backend, update(key, written | {"score:b": 3.0})) == [False]  # stale
    assert held(backend, update(key, written | {"score:c": 3.0})) == [False]  # missing
    assert held(backend, update(key, {"score:a": 1.0})) == [False]  # orphaned
    assert held(backend, update(new_key(), written)) == [False]  # no row
    if backend.store.wants_details:
        assert held(backend, update(key, written, NOW_US, ["a"])) == [False]


def test_a_key_that_cannot_be_sent_fails_alone(backend: Backend) -> None:
    fine = update(new_key(), {})
    bad = update(new_key()._replace(user_id="\udfff"), {})
    result = backend.store.hold([bad, fine], METRICS)
    if backend.shape.is_cassandra:
        assert isinstance(result[0], StoreRefusedError)
        assert result[1] is True
