"""Tell from the bytes of an aggregate row whether it holds an update already.

In most batch runs next to nothing has changed. To decode three maps of a row and the time of each
of their entries costs several times what all the rest of a run does; bytes can be compared.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import lru_cache
from operator import add

from group_scores.scores import ActivityAgg
from group_scores.scores.aggregate import to_int
from group_scores.stores.cassandra import codec

_UPDATED = "agg_last_updated"
_TIME_BYTES = 12  # with its length
_NAMES = 100_000


def holds(
    update: ActivityAgg,
    row: Mapping[str, bytes | None],
    *,
    maps: Collection[str],
    metrics: Collection[str],
) -> bool:
    """Tell whether a row holds all that `update` would write, and no other key of the metrics.

    `row` has the bytes of its maps and of its list by their columns, `maps` are the maps of values
    that are written. False may also mean that it is not known: the row has to be decoded then.
    """
    try:
        return _holds(update, row, maps, metrics)
    except UnicodeEncodeError:  # the write of it will be refused
        return False


def _holds(
    update: ActivityAgg,
    row: Mapping[str, bytes | None],
    maps: Collection[str],
    metrics: Collection[str],
) -> bool:
    # As Cassandra sorts the keys of a map: by their bytes, which is the order of the texts.
    entries = sorted(update.metrics.items())
    heads = [_head(name) for name, _ in entries]
    if not _has(row.get(_UPDATED), heads):
        return False
    for column in maps:
        if column == "agg":
            tails = [codec.sized_integer(to_int(value)) for _, value in entries]
        else:
            tails = [codec.sized_double(value) for _, value in entries]
        if not _same(row.get(column), heads, tails, metrics):
            return False
    if update.details is None:
        return True
    texts = [text.encode() for text in update.details]
    return row.get("agg_details") == (codec.list_of(texts) if texts else None)


@lru_cache(_NAMES)  # the contents of a course are the same for all its learners
def _head(name: str) -> bytes:
    """Return a map's key with its length."""
    key = name.encode()
    return codec.integer(len(key)) + key


def _same(
    data: bytes | None, heads: list[bytes], tails: list[bytes], metrics: Collection[str]
) -> bool:
    """Tell whether a map has these entries, and no other with the name of a metric."""
    if data is None:
        return not heads
    wanted = list(map(add, heads, tails))
    if data[4:] == b"".join(wanted):
        return True
    found = codec.entries(data)  # another job has its keys in it, too
    if not found.issuperset(wanted):
        return False
    prefixes = tuple(f"{metric}:".encode() for metric in metrics)
    return not any(entry.startswith(prefixes, 4) for entry in found.difference(wanted))


def _has(data: bytes | None, heads: list[bytes]) -> bool:
    """Tell whether a map of times has all the keys."""
    if data is None:
        return not heads
    tail = data[-_TIME_BYTES:]
    if data[4:] == tail.join([*heads, b""]):
        return True  # as one write leaves it
    return {entry[:-_TIME_BYTES] for entry in codec.entries(data)}.issuperset(heads)
