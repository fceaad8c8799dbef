"""Ranges of tokens to scan a table by: the cluster's own, cut to a size that one reader likes.

A range is exclusive of its start and inclusive of its end, as Cassandra's are, and never wraps
round: the one of the ring that does is two here. Nothing here speaks with a cluster.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

MIN_TOKEN = -(2**63)
"""Below every token: no partition of the Murmur3 partitioner has it, so all are above it."""
MAX_TOKEN = 2**63 - 1
RING = MAX_TOKEN - MIN_TOKEN

RANGE_BYTES = 16 << 20
RANGE_PARTITIONS = 100_000
UNKNOWN_RANGES = 256
"""Into how many the ring is cut where the nodes do not know how large the table is."""
MOST_RANGES_A_PARTITION = 4  # the others would be empty: a partition cannot be cut


class TokenRange(NamedTuple):
    """The tokens in (start, end]."""

    start: int
    end: int

    @property
    def size(self) -> int:
        """How many tokens."""
        return self.end - self.start


class SizeEstimate(NamedTuple):
    """What a node says of the range of the ring that it is the first replica of; it may wrap."""

    start: int
    end: int
    partition_bytes: int
    partitions: int


class TableSize(NamedTuple):
    """About how large a table is, in bytes before compression."""

    bytes: int
    partitions: int


class PlannedRange(NamedTuple):
    """A range to scan and about how many bytes are in it; 0 where that is not known."""

    start: int
    end: int
    bytes: int


WHOLE_RING = TokenRange(MIN_TOKEN, MAX_TOKEN)


def ring_ranges(tokens: Iterable[int]) -> list[TokenRange]:
    """Return the ranges between the nodes' tokens, in order; together they are the whole ring."""
    borders = sorted({token for token in tokens if MIN_TOKEN < token < MAX_TOKEN})
    return list(map(TokenRange, [MIN_TOKEN, *borders], [*borders, MAX_TOKEN]))


def table_size(estimates: Iterable[SizeEstimate]) -> TableSize | None:
    """Return the size of the table, None where the nodes have not estimated it.

    Where some nodes did not answer, the rest of the ring is taken to be like what they have.
    """
    distinct = {(one.start, one.end): one for one in estimates}.values()
    partitions = sum(one.partitions for one in distinct)
    covered = sum(_width(one) for one in distinct)
    if not partitions or not covered:
        return None
    size = sum(one.partitions * one.partition_bytes for one in distinct)
    share = min(1.0, covered / RING)
    return TableSize(int(size / share), int(partitions / share))


def plan(tokens: Iterable[int], size: TableSize | None) -> list[PlannedRange]:
    """Cut the ring at the nodes' tokens, and again where that leaves much in a range.

    Ranges that hold little are joined with their neighbours: on a cluster of many virtual nodes a
    small table would otherwise cost a request for each.
    """
    count = _range_count(size)
    most = -(-RING // count)
    density = size.bytes / RING if size else 0.0
    small = [one for whole in ring_ranges(tokens) for one in cut(whole, -(-whole.size // most))]
    return [PlannedRange(*one, int(density * one.size)) for one in _joined(small, most)]


def _joined(ranges: Iterable[TokenRange], most: int) -> Iterator[TokenRange]:
    """Join neighbours as long as they have no more than so many tokens together."""
    last: TokenRange | None = None
    for one in ranges:
        if last and one.end - last.start <= most:
            last = TokenRange(last.start, one.end)
            continue
        if last:
            yield last
        last = one
    if last:
        yield last


def cut(whole: TokenRange, count: int) -> Iterator[TokenRange]:
    """Cut a range into `count` of nearly the same size; fewer where it has fewer tokens."""
    count = max(1, min(count, whole.size))
    borders = [whole.start + whole.size * number // count for number in range(count + 1)]
    return map(TokenRange, borders[:-1], borders[1:])


def _range_count(size: TableSize | None) -> int:
    if size is None:
        return UNKNOWN_RANGES
    by_bytes = min(-(-size.bytes // RANGE_BYTES), size.partitions * MOST_RANGES_A_PARTITION)
    return max(1, by_bytes, -(-size.partitions // RANGE_PARTITIONS))


def _width(estimate: SizeEstimate) -> int:
    width = estimate.end - estimate.start
    return width if width > 0 else width + RING  # it wraps, or it is the whole ring
