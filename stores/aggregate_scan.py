"""The aggregate rows of a selection, as fast as the backend gives them."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from typing import Any

from group_scores.stores.open import StoreConfig, open_store
from group_scores.stores.protocol import Selection, Store

_FETCH_ROWS = 1_000  # a row of maps is much larger in Python than one of attempts
_KEY = ("activity_id", "user_id", "context_id")


def report_columns(store: Store) -> tuple[str, ...]:
    """Return the columns that a report needs: not the details, which are most of a row."""
    return (*_KEY, *store.value_maps, "agg_last_updated")


def aggregate_rows(
    config: StoreConfig,
    selection: Selection,
    call: Callable[[Callable[[], Any]], Any],
) -> Generator[Mapping[str, object], None, None]:
    """Yield the rows, `report_columns` of each by name; times in epoch ms, a null map may be None.

    A cluster's table is read by token ranges, one after the other; `call` is how a read is done
    that may be tried again after a ServiceUnavailableError, which is raised where it gives up.
    """
    store = open_store(config)
    try:
        cluster = config.cluster
        if cluster is None:
            yield from store.scan("aggregates", selection)
            return
        columns = report_columns(store)
    finally:
        store.close()
    # Imported here: an embedded run should not pay for loading the driver.
    from group_scores.stores.cassandra.ranges import TokenRange
    from group_scores.stores.cassandra.scan import aggregate_filter
    from group_scores.stores.cassandra.schema import AGGREGATES
    from group_scores.stores.cassandra.table_reader import TableReader, TableSource

    where = tuple(aggregate_filter(selection).items())
    reader = TableReader(TableSource(cluster, AGGREGATES, columns, where, fetch_rows=_FETCH_ROWS))
    try:
        for start, end, _ in call(reader.ranges):
            for page in reader.chunks(TokenRange(start, end), call):
                for row in page.items:
                    yield dict(zip(columns, row, strict=True))
    finally:
        reader.close()
