"""Token ranges, their tracker and the learners of their rows: everything once, whoever cuts."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
from apache_beam.runners.sdf_utils import RestrictionTrackerView, ThreadsafeRestrictionTracker
from hypothesis import given
from hypothesis import strategies as st

from group_scores.scores import ActivityKey, StoredAttempt
from group_scores.stores.cassandra.ranges import (
    MAX_TOKEN,
    MIN_TOKEN,
    MOST_RANGES_A_PARTITION,
    RANGE_BYTES,
    RANGE_PARTITIONS,
    RING,
    UNKNOWN_RANGES,
    WHOLE_RING,
    SizeEstimate,
    TableSize,
    TokenRange,
    cut,
    plan,
    ring_ranges,
    table_size,
)
from group_scores.stores.cassandra.scan_attempts import whole_learners
from group_scores.stores.cassandra.table_reader import Chunk, Page
from group_scores.transforms.cassandra.read import _Turn
from group_scores.transforms.cassandra.tracker import (
    TokenRangeCoder,
    TokenRanges,
    TokenRangeTracker,
)

GIB = 1 << 30
any_token = st.integers(MIN_TOKEN, MAX_TOKEN)
sizes = st.none() | st.builds(TableSize, st.integers(0, 4 * GIB), st.integers(0, 2_000_000))


def assert_follow_each_other(found: list[Any], whole: TokenRange) -> None:
    """Every token of `whole` is in one of the ranges, and in no other."""
    assert found[0].start == whole.start
    assert found[-1].end == whole.end
    assert all(one.end == next_.start for one, next_ in itertools.pairwise(found))
    assert all(one.start < one.end for one in found)


@given(st.sets(any_token, max_size=50))
def test_the_ring_is_covered_once_whatever_wraps_round(tokens: set[int]) -> None:
    found = ring_ranges(tokens)
    assert_follow_each_other(found, WHOLE_RING)
    inner = tokens - {MIN_TOKEN, MAX_TOKEN}
    assert {one.end for one in found} == inner | {MAX_TOKEN}


@given(st.sets(any_token, max_size=50), sizes)
def test_what_is_planned_covers_the_ring_once_and_evenly(
    tokens: set[int], size: TableSize | None
) -> None:
    found = plan(tokens, size)
    assert_follow_each_other(found, WHOLE_RING)
    if size is None:
        assert UNKNOWN_RANGES <= len(found) <= 2 * (UNKNOWN_RANGES + len(tokens) + 1)
        assert all(one.bytes == 0 for one in found)
        return
    by_bytes = max(one.bytes for one in found) <= RANGE_BYTES
    assert by_bytes or len(found) >= size.partitions * MOST_RANGES_A_PARTITION
    widest = max(one.end - one.start for one in found)
    assert size.partitions * widest / RING <= RANGE_PARTITIONS * (1 + 1e-9)
    assert sum(one.bytes for one in found) == pytest.approx(size.bytes, rel=1e-9, abs=len(found))


def test_many_virtual_nodes_of_a_small_table_are_read_together() -> None:
    tokens = [MIN_TOKEN + RING // 5000 * number for number in range(5000)]
    assert len(plan(tokens, TableSize(1000, 10))) == 1
    assert len(plan(tokens, TableSize(100 * RANGE_BYTES, 10**6))) == pytest.approx(100, abs=5)


@given(st.tuples(any_token, any_token).filter(lambda ends: ends[0] != ends[1]), st.integers(0, 300))
def test_cuts_follow_each_other(ends: tuple[int, int], count: int) -> None:
    whole = TokenRange(*sorted(ends))
    found = list(cut(whole, count))
    assert_follow_each_other(found, whole)
    assert len(found) == max(1, min(count, whole.size))
    assert max(one.size for one in found) - min(one.size for one in found) <= 1


class TestTableSize:
    def test_is_not_known_where_the_nodes_do_not_say(self) -> None:
        assert table_size([]) is None
        assert table_size([SizeEstimate(0, 100, 0, 0)]) is None

    def test_of_a_ring_that_wraps_round_and_of_a_node_asked_twice(self) -> None:
        wraps = SizeEstimate(0, -1, 100, 10)  # all but one token
        assert table_size([wraps, wraps]) == TableSize(1000, 10)
        assert table_size([SizeEstimate(5, 5, 100, 10)]) == TableSize(1000, 10)  # all of it

    def test_takes_nodes_that_are_silent_for_like_the_others(self) -> None:
        half = SizeEstimate(MIN_TOKEN, -1, 100, 10)
        found = table_size([half])
        assert found is not None
        assert (found.bytes, found.partitions) == (2000, 20)


# The tracker


tokens_of = st.integers(-20, 20)
small_ranges = st.tuples(tokens_of, tokens_of).map(sorted).map(lambda ends: TokenRange(*ends))


@given(whole=small_ranges, present=st.sets(tokens_of), data=st.data())
def test_splits_and_checkpoints_share_the_tokens_out(
    whole: TokenRange, present: set[int], data: st.DataObject
) -> None:
    """Each partition is read by one reader, whole, whenever and wherever its range is split."""
    todo = [whole]
    read: list[int] = []
    splits = 0
    while todo:
        tokens = todo.pop()
        tracker = TokenRangeTracker(tokens)
        for token in sorted(t for t in present if tokens.start < t <= tokens.end):
            if splits < 10 and data.draw(st.booleans(), "split"):
                before = tracker.current_restriction()
                parts = tracker.try_split(data.draw(st.sampled_from([0, 0.1, 0.5, 0.99, 1])))
                if parts:
                    primary, residual = parts
                    assert (primary.start, residual.end) == (before.start, before.end)
                    assert primary.end == residual.start
                    assert primary == tracker.current_restriction()
                    assert residual.size > 0
                    todo.append(residual)
                    splits += 1
            if not tracker.try_claim(token):
                assert token > tracker.current_restriction().end
                break
            read.append(token)
        end = tracker.current_restriction().end
        if end > tracker._claimed:
            with pytest.raises(ValueError, match="was claimed"):
                tracker.check_done()
            assert tracker.try_claim(end)
        tracker.check_done()
        assert tracker.try_split(0) is None
    assert sorted(read) == sorted(t for t in present if whole.start < t <= whole.end)
    assert len(set(read)) == len(read)


@given(st.tuples(any_token, any_token).map(sorted), st.floats(0, 1), any_token)
def test_splits_at_the_fraction_of_tokens_of_any_size(
    ends: list[int], fraction: float, claim: int
) -> None:
    whole = TokenRange(*ends)
    tracker = TokenRangeTracker(whole)
    if whole.start < claim <= whole.end:
        assert tracker.try_claim(claim)
    else:
        claim = whole.start
    parts = tracker.try_split(fraction)
    if parts is None:
        assert claim == whole.end or fraction == 1
        return
    primary, residual = parts
    assert whole.start == primary.start <= claim <= primary.end == residual.start < residual.end
    assert residual.end == whole.end
    assert (primary.end - claim) == pytest.approx(
        (whole.end - claim) * fraction, rel=1e-6, abs=2 + (whole.end - claim) * 2**-31
    )
    progress = tracker.current_progress()
    if primary.size:
        assert progress.fraction_completed == pytest.approx((claim - primary.start) / primary.size)


def test_a_claim_goes_forward() -> None:
    tracker = TokenRangeTracker(TokenRange(0, 10))
    with pytest.raises(ValueError, match="is claimed after"):
        tracker.try_claim(0)
    assert not tracker.try_claim(11)
    assert tracker.try_claim(5)
    with pytest.raises(ValueError, match="is claimed after"):
        tracker.try_claim(5)
    assert tracker.current_progress().fraction_completed == 0.5
    assert tracker.is_bounded()


def test_an_empty_range_is_done() -> None:
    tracker = TokenRangeTracker(TokenRange(3, 3))
    tracker.check_done()
    assert tracker.try_split(0.5) is None
    assert tracker.current_progress().fraction_completed == 1.0


@given(st.tuples(any_token, any_token).map(sorted))
def test_the_coder_keeps_every_range(ends: list[int]) -> None:
    coder = TokenRangeCoder()
    one = TokenRange(*ends)
    assert coder.decode(coder.encode(one)) == one
    assert coder == TokenRanges().restriction_coder()


def test_the_size_of_a_restriction_is_its_share_of_the_bytes() -> None:
    element = (0, 1000, 4096)
    provider = TokenRanges()
    assert provider.initial_restriction(element) == TokenRange(0, 1000)
    assert provider.restriction_size(element, TokenRange(0, 1000)) == 4096
    assert provider.restriction_size(element, TokenRange(750, 1000)) == 1024
    assert provider.restriction_size((0, 10, 0), TokenRange(0, 10)) == 1


@given(
    rows=st.lists(st.integers(1, 12), max_size=40).map(sorted),
    page=st.integers(1, 8),
    most=st.none() | st.integers(1, 10),
    data=st.data(),
)
def test_a_turn_reads_whole_partitions_and_hands_the_rest_back(
    rows: list[int], page: int, most: int | None, data: st.DataObject
) -> None:
    """Rows of tokens 1 to 12 in chunks that end anywhere, a runner that splits at any time."""
    todo = [TokenRange(0, 12)]
    items = list(enumerate(rows))
    read: list[tuple[int, int]] = []
    splits = 0
    while todo:
        tokens = todo.pop()
        inner = ThreadsafeRestrictionTracker(TokenRangeTracker(tokens))
        turn = _Turn(RestrictionTrackerView(inner), tokens.start, most)
        mine = [item for item in items if tokens.start < item[1] <= tokens.end]
        for start in range(0, len(mine), page):
            if splits < 8 and data.draw(st.booleans(), "split"):
                parts = inner.try_split(data.draw(st.sampled_from([0, 0.3, 0.9])))
                if parts:
                    todo.append(parts[1])
                    splits += 1
            some = mine[start : start + page]
            got = turn.claim(Chunk(0, [token for _, token in some], some))
            turn.rows += len(got)
            read += got
            if turn.over:
                break
        turn.finish()
        inner.check_done()
        deferred = inner.deferred_status()
        if deferred:
            assert most is not None
            todo.append(deferred[0])
    assert sorted(read) == items


# Learners


scores_or_none = st.none() | st.floats()
table_rows = st.lists(
    st.tuples(
        st.sampled_from(["c1", "c2"]),
        st.sampled_from(["u1", "u2", "u3"]),
        st.sampled_from(["b1", "b2"]),
        st.sampled_from(["x", "y"]),
        st.sampled_from(["1", "2", "3"]),
    ),
    unique=True,
)


@given(
    keys=table_rows,
    by_course=st.booleans(),
    collide=st.booleans(),
    score=scores_or_none,
    page=st.integers(1, 9),
)
def test_learners_are_whole_whatever_the_pages(
    keys: list[tuple[str, ...]], by_course: bool, collide: bool, score: float | None, page: int
) -> None:
    def token(row: tuple[str, ...]) -> int:
        """As a partitioner would: one token a partition, or, rarely, one for two of them."""
        return 7 if collide else sum(map(ord, row[0] if by_course else row[0] + row[1]))

    def order(row: tuple[str, ...]) -> Any:
        course, user, batch, content, attempt = row
        if by_course:
            return token(row), course, batch, user, content, attempt
        return token(row), user, course, batch, content, attempt

    rows = [(token(key), *key, None, score, 2.0) for key in sorted(keys, key=order)]
    pages = [
        Page(1000 * number, rows[start : start + page], start + page >= len(rows))
        for number, start in enumerate(range(0, len(rows), page), 1)
    ]
    asked_us = {row[1:6]: one.t_us for one in pages for row in one.rows}
    chunks = list(whole_learners(pages))
    found = [learner for chunk in chunks for learner in chunk.items]
    assert len({key for key, _ in found}) == len(found)
    assert sorted(
        (*key[:2], key[2], a.content_id, a.attempt_id) for key, own in found for a in own
    ) == sorted(keys)
    for chunk in chunks:
        assert chunk.tokens == sorted(chunk.tokens)
        assert len(chunk.tokens) == len(chunk.items)
        for (course, user, batch), attempts in chunk.items:
            first = min(asked_us[course, user, batch, a.content_id, a.attempt_id] for a in attempts)
            assert chunk.t_us <= first
            for one in attempts:
                assert one.last_attempted_on_ms is None
                assert one.total_score is score or one.total_score == score
                assert one.total_max_score == 2.0
        # Not older than it has to be: the time of the page in which the first of them begins.
        (course, user, batch), attempts = chunk.items[0]
        assert chunk.t_us == min(
            asked_us[course, user, batch, a.content_id, a.attempt_id] for a in attempts
        )


def test_a_learner_of_many_pages_has_the_time_before_the_first() -> None:
    def row(user: str, attempt: int) -> tuple[Any, ...]:
        return (1, "c", user, "b", "x", str(attempt), 5, math.nan, None)

    pages = [
        Page(10, [row("u", 1), row("u", 2)], False),
        Page(20, [], False),
        Page(30, [row("u", 3)], False),
        Page(40, [row("u", 4), row("v", 1)], False),
        Page(50, [row("v", 2), row("w", 1)], True),
    ]
    found = list(whole_learners(pages))
    assert [(c.t_us, [(key.user_id, len(own)) for key, own in c.items]) for c in found] == [
        (10, [("u", 4)]),
        (40, [("v", 2), ("w", 1)]),
    ]
    key, attempts = found[0].items[0]
    assert key == ActivityKey("c", "u", "b")
    assert isinstance(attempts[0], StoredAttempt)
