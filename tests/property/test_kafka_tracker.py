"""A partition read in turns with gaps: every offset in exactly one turn, whoever ends the turn."""

from __future__ import annotations

from unittest import mock

import pytest
from apache_beam.io.restriction_trackers import OffsetRange
from apache_beam.runners.sdf_utils import RestrictionTrackerView, ThreadsafeRestrictionTracker
from hypothesis import given
from hypothesis import strategies as st

from group_scores.transforms.kafka import group as group_module
from group_scores.transforms.kafka.address import KafkaAddress
from group_scores.transforms.kafka.group import Committer
from group_scores.transforms.kafka.read import OffsetRangeCoder, PartitionTracker

bounds = st.tuples(st.integers(0, 50), st.integers(0, 50)).map(sorted)


@given(bounds=bounds, kept=st.sets(st.integers(0, 50)), data=st.data())
def test_checkpoints_partition_the_offsets(
    bounds: list[int], kept: set[int], data: st.DataObject
) -> None:
    start, stop = bounds
    offsets = sorted(o for o in kept if start <= o < stop)
    rest: OffsetRange | None = OffsetRange(start, stop)
    claimed: list[int] = []
    turns = 0
    while rest is not None:
        tracker = PartitionTracker(rest)
        ahead = [o for o in offsets if o >= rest.start]
        take = data.draw(st.integers(0 if turns < 60 else 60, 60), "records in this turn")
        by_runner = data.draw(st.booleans(), "the runner ends it")
        end, begin, rest = rest.stop, rest.start, None
        for offset in ahead[:take]:
            assert tracker.try_claim(offset)
            claimed.append(offset)
        if len(ahead) > take:
            split = tracker.try_split(0)
            if split is not None:
                primary, rest = split
                assert (primary.start, rest.stop) == (begin, end)
                assert primary.stop == rest.start
                assert rest.start == (ahead[take - 1] + 1 if take else begin)
                if by_runner:
                    assert not tracker.try_claim(ahead[take])
        else:
            assert not tracker.try_claim(end)
            assert tracker.try_split(0) is None
        tracker.check_done()
        turns += 1
    assert claimed == offsets


@given(bounds=bounds, fraction=st.floats(0.001, 1.0), claims=st.integers(0, 50))
def test_a_partition_is_never_read_at_two_places(
    bounds: list[int], fraction: float, claims: int
) -> None:
    start, stop = bounds
    tracker = PartitionTracker(OffsetRange(start, stop))
    for offset in range(start, min(stop, start + claims)):
        assert tracker.try_claim(offset)
    assert tracker.try_split(fraction) is None
    assert tracker.current_restriction() == OffsetRange(start, stop)


def test_a_gap_that_was_passed_is_not_passed_again() -> None:
    """An hour of aborted transactions would be, for ever, if the rest began where it began."""
    inner = PartitionTracker(OffsetRange(0, 100))
    shared = ThreadsafeRestrictionTracker(inner)
    tracker = RestrictionTrackerView(shared)
    assert tracker.try_claim(3)
    assert tracker.try_claim(59)  # offsets 4 to 59 hold no record
    tracker.defer_remainder()
    shared.check_done()
    residual, _ = shared.deferred_status()
    assert residual == OffsetRange(60, 100)


def test_unfinished_work_is_noticed() -> None:
    tracker = PartitionTracker(OffsetRange(0, 10))
    assert tracker.try_claim(8)
    with pytest.raises(ValueError, match="not done"):
        tracker.check_done()


@given(start=st.integers(0, 2**62), size=st.integers(0, 2**62 - 1))
def test_the_coder_is_deterministic(start: int, size: int) -> None:
    coder = OffsetRangeCoder()
    range_ = OffsetRange(start, start + size)
    assert coder.decode(coder.encode(range_)) == range_
    assert coder.encode(range_) == coder.encode(OffsetRange(start, start + size))
    assert coder.is_deterministic()


class Broker:
    """The committed offset of one partition, as the broker has it; every commit is checked."""

    def __init__(self) -> None:
        self.at: int | None = None
        self.allow_back = False

    def committed(self, partitions: list[int], timeout_s: float) -> dict[int, int | None]:
        return dict.fromkeys(partitions, self.at)

    def commit(self, offsets: dict[int, int], timeout_s: float) -> None:
        (offset,) = offsets.values()
        assert self.allow_back or self.at is None or offset > self.at, "it went backwards"
        self.at = offset

    def close(self) -> None:
        pass


@given(
    commits=st.lists(st.tuples(st.integers(0, 1), st.integers(0, 30)), min_size=1),
    before=st.none() | st.integers(0, 30),
)
def test_finalizers_in_any_order_and_of_two_processes_only_move_forward(
    commits: list[tuple[int, int]], before: int | None
) -> None:
    broker = Broker()
    broker.at = before
    with mock.patch.object(group_module, "GroupOffsets", return_value=broker):
        processes = [Committer(KafkaAddress.parse("kafka://broker/t")) for _ in range(2)]
    for process, offset in commits:
        assert processes[process].commit(0, offset)
    assert broker.at == max([offset for _, offset in commits] + [before or 0])


@given(early=st.lists(st.integers(11, 30)), late=st.lists(st.integers(3, 9), min_size=1))
def test_a_rewind_voids_what_was_read_before_it(early: list[int], late: list[int]) -> None:
    broker = Broker()
    with mock.patch.object(group_module, "GroupOffsets", return_value=broker):
        committer = Committer(KafkaAddress.parse("kafka://broker/t"))
    old = committer.generation(0)
    assert committer.commit(0, 10, old)
    broker.allow_back = True
    assert committer.rewind(0, 2)
    assert broker.at == 2
    broker.allow_back = False
    for offset in early:  # finalizers of bundles from before the log was cut off
        assert not committer.commit(0, offset, old)
    for offset in late:
        assert committer.commit(0, offset, committer.generation(0))
    assert broker.at == max(late)
