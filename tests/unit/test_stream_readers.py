"""What starts the readers of an endless read: once, and never over but where a job is drained."""

from __future__ import annotations

import time

import pytest

from group_scores.transforms.kafka.stream import _NeverDone, _ReadersFn

HOLD_S = 30 * 86_400


class Deferring(_NeverDone):
    """The tracker as a runner hands it over: what is deferred is the rest of a split."""

    deferred: int | None = None

    def defer_remainder(self, _: object) -> None:
        split = self.try_split(0)
        assert split is not None
        self.deferred = split[1]


def call(until_s: int, *, drained_by_timers: bool) -> tuple[list[object], int | None]:
    """Return what is emitted, and until when the rest is deferred."""
    tracker = Deferring(until_s)
    fn = _ReadersFn((b"a", b"b"), drained_by_timers)
    return list(fn.process(b"", tracker)), tracker.deferred


@pytest.mark.parametrize("drained_by_timers", [False, True])
def test_readers_are_started_once_and_the_rest_is_put_off(drained_by_timers: bool) -> None:
    emitted, until_s = call(0, drained_by_timers=drained_by_timers)
    assert emitted == [(b"a", (0, 2)), (b"b", (1, 2))]
    assert until_s is not None
    assert abs(until_s - time.time() - HOLD_S) < 60
    again, until_s = call(int(time.time()) - 1, drained_by_timers=drained_by_timers)
    assert again == []
    assert until_s is not None


def test_a_call_before_its_time_ends_the_input_only_where_it_means_a_drain() -> None:
    early = int(time.time()) + HOLD_S
    assert call(early, drained_by_timers=True) == ([], None)
    emitted, until_s = call(early, drained_by_timers=False)
    assert emitted == []
    assert until_s is not None
