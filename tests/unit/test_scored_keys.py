"""Which rows hold anything of ours, and how a scan that breaks off goes on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from group_scores.scores import ActivityKey
from group_scores.stores import Selection, StoreConfig, StoreTransientError
from group_scores.transforms.retry import Retry
from group_scores.transforms.scored_keys import ScanPages, columns_of, scored_keys

METRICS = ("score", "max_score")


@pytest.mark.parametrize(
    ("collections", "ours"),
    [
        (({"score:c1": 1}, {}, []), True),
        ((None, {"max_score:c1": 1.0}, None), True),
        ((None, None, ["x"]), True),
        (({"completedCount": 1}, None, None), False),
        (({"attempts_count:c1": 1, "scores:c": 1}, {}, []), False),  # no metric that is asked for
        (({}, {}), False),
    ],
)
def test_a_row_is_ours_by_its_keys_or_its_list(collections: tuple[Any, ...], ours: bool) -> None:
    row = ("course", "user", "cb:batch", *collections)
    found = list(scored_keys([row], METRICS))
    assert found == ([ActivityKey("course", "user", "batch")] if ours else [])


class Breaking:
    """A store whose scan breaks off after a number of rows, for as often as it is told to."""

    value_maps = ("agg",)
    wants_details = False

    def __init__(self, rows: int, breaks: list[int]) -> None:
        self._keys = [(f"course{n // 5}", f"u{n % 5}", f"cb:b{n % 2}") for n in range(rows)]
        self._breaks = breaks
        self.scans = 0

    def scan(self, table: str, selection: Selection) -> Iterator[dict[str, Any]]:
        assert (table, selection) == ("aggregates", Selection("c"))
        self.scans += 1
        left = self._breaks.pop(0) if self._breaks else len(self._keys)
        for course, user, context in self._keys[:left]:
            yield {
                "activity_type": "Course",
                "activity_id": course,
                "user_id": user,
                "context_id": context,
                "agg": {},
                "agg_last_updated": {},
                "agg_details": [],
            }
        if left < len(self._keys):
            raise StoreTransientError("locked")

    def all(self) -> list[tuple[Any, ...]]:
        return [(*key, {}) for key in self._keys]


@pytest.mark.parametrize("breaks", [[], [0], [3, 0, 5, 5], [19, 4], [1] * 9])
@pytest.mark.parametrize("page_rows", [1, 4, 100])
def test_a_scan_that_breaks_off_goes_on_behind_the_last_page(
    breaks: list[int], page_rows: int
) -> None:
    store: Any = Breaking(20, list(breaks))
    pages = ScanPages(store, Selection("c"), page_rows)
    retry = Retry(5, longest_pause_s=0)
    rows = []
    while page := retry.call(pages.next):
        assert len(page) <= page_rows
        rows += page
    assert rows == store.all()
    assert store.scans <= len(breaks) + 1


def test_a_scan_that_stays_broken_raises() -> None:
    store: Any = Breaking(20, [3] * 1_000)
    pages = ScanPages(store, Selection("c"), 2)
    assert len(Retry(0).call(pages.next)) == 2
    with pytest.raises(StoreTransientError, match="locked"):
        Retry(0.05, longest_pause_s=0).call(pages.next)


def test_only_what_is_needed_is_read() -> None:
    store: Any = Breaking(0, [])
    key = ("activity_id", "user_id", "context_id")
    assert columns_of(store) == (*key, "agg")
    store.value_maps, store.wants_details = ("agg", "aggregates"), True
    assert columns_of(store) == (*key, "agg", "aggregates", "agg_details")


def test_a_cluster_is_read_by_ranges_and_a_file_is_not() -> None:
    assert StoreConfig("sqlite:scores.db").cluster is None
    cluster = StoreConfig("cassandra://h/ks?consistency=ONE").cluster
    assert cluster is not None
    assert (cluster.keyspace, cluster.consistency) == ("ks", "ONE")
