"""The clock of aggregates, with the three clocks behind it under the test's hand."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from group_scores.stores import ClockSkewError, StoreTransientError
from group_scores.stores.clock import DRIFT_US, MAX_SKEW_US, RESYNC_S, ClusterClock

START_US = 1_760_000_000_000_000
RESYNC_US = int(RESYNC_S * 1_000_000)
PROBES = 5


@dataclass
class World:
    """True time, and what each clock shows of it; a probe takes `trip_us` each way."""

    now_us: int = START_US
    wall_off_us: int = 0
    cluster_off_us: int = 0
    slept_us: int = 0
    trip_us: int = 200
    probes: int = 0
    fails: bool = False
    seen_off_us: int = 0
    trips_us: list[int] = field(default_factory=list)

    def clock(self) -> ClusterClock:
        return ClusterClock(self.probe, wall_us=self.wall, monotonic_us=self.monotonic)

    def probe(self) -> int:
        self.probes += 1
        if self.fails:
            raise StoreTransientError("away")
        trip_us = self.trips_us.pop() if self.trips_us else self.trip_us
        self.now_us += trip_us
        shown = self.cluster()
        self.seen_off_us = self.cluster_off_us
        self.now_us += trip_us
        return shown

    def cluster(self) -> int:
        return self.now_us + self.cluster_off_us

    def wall(self) -> int:
        return self.now_us + self.wall_off_us

    def monotonic(self) -> int:
        return self.now_us - START_US + 77 - self.slept_us


def test_shows_the_clusters_time() -> None:
    world = World(cluster_off_us=1_234_567)
    clock = world.clock()
    assert clock.now_us() == world.cluster()
    world.now_us += 10_000_000
    assert clock.now_us() == world.cluster()
    assert world.probes == PROBES


def test_believes_the_quickest_probe() -> None:
    """A slow way there, or a slow way back, is no difference of the clocks."""
    world = World()
    clock = world.clock()
    world.trips_us = [400_000, 90_000, 10, 3_000, 800_000]
    assert abs(clock.now_us() - world.cluster()) <= 10


def test_slow_cluster_is_no_wrong_clock() -> None:
    """Our own clock goes on while the answer is on its way."""
    world = World(trip_us=MAX_SKEW_US + 1_000_000)
    clock = world.clock()
    assert clock.now_us() == world.cluster()


def test_grows_where_time_stands_still() -> None:
    clock = World().clock()
    times = [clock.now_us() for _ in range(100)]
    assert times == sorted(set(times))


def test_is_measured_again_in_time() -> None:
    world = World()
    clock = world.clock()
    clock.now_us()
    world.now_us += RESYNC_US - 1_000_000
    world.cluster_off_us = 40_000  # its clock, or ours, runs fast
    clock.now_us()
    assert world.probes == PROBES
    world.now_us += 2_000_000
    assert clock.now_us() == world.cluster()
    assert world.probes == 2 * PROBES


@pytest.mark.parametrize("step_us", [-MAX_SKEW_US + 1000, -DRIFT_US * 2, DRIFT_US * 2, 4_900_000])
def test_wall_clock_that_steps_within_the_bound_does_not_matter(step_us: int) -> None:
    world = World()
    clock = world.clock()
    clock.now_us()
    world.wall_off_us = step_us
    for _ in range(3):
        world.now_us += 20_000_000
        assert clock.now_us() == world.cluster()


@pytest.mark.parametrize("step_us", [-MAX_SKEW_US - 1000, MAX_SKEW_US + 1000, 3_600_000_000])
@pytest.mark.parametrize("at_start", [True, False])
def test_wall_clock_beyond_the_bound_is_refused_until_it_is_right(
    step_us: int, at_start: bool
) -> None:
    world = World()
    clock = world.clock()
    before = 0 if at_start else clock.now_us()
    world.wall_off_us = step_us
    for _ in range(3):
        world.now_us += 1_000_000
        with pytest.raises(ClockSkewError, match="time service") as error:
            clock.now_us()
        assert f"clock is {step_us / 1e6:+.1f} s off" in str(error.value)
    world.wall_off_us = 0
    assert before < clock.now_us() == world.cluster()


@pytest.mark.parametrize("jump_us", [-MAX_SKEW_US - 1000, MAX_SKEW_US + 1000])
def test_cluster_that_jumps_is_reported_once(jump_us: int) -> None:
    """The wall clock goes along: it is the monotonic one that lost time, or the cluster's moved."""
    world = World()
    clock = world.clock()
    before = clock.now_us()
    world.cluster_off_us = world.wall_off_us = jump_us
    world.now_us += RESYNC_US + 1
    with pytest.raises(ClockSkewError) as error:
        clock.now_us()
    assert f"moved by {jump_us / 1e6:+.1f} s" in str(error.value)
    assert before < clock.now_us() == world.cluster()


def test_machine_that_slept_asks_before_it_gives_out_a_time() -> None:
    world = World()
    clock = world.clock()
    clock.now_us()
    world.now_us += 3_000_000
    world.slept_us = 2_000_000  # the monotonic clock has stood still, the wall clock has not
    assert clock.now_us() == world.cluster()
    world.now_us += 600_000_000
    world.slept_us += 600_000_000
    with pytest.raises(ClockSkewError, match=r"moved by \+600\.0 s"):
        clock.now_us()
    assert clock.now_us() == world.cluster()


def test_probe_that_fails_leaves_it_usable() -> None:
    world = World(fails=True)
    clock = world.clock()
    with pytest.raises(StoreTransientError, match="away"):
        clock.now_us()
    world.fails = False
    first = clock.now_us()
    world.fails = True
    world.now_us += RESYNC_US + 1
    with pytest.raises(StoreTransientError, match="away"):
        clock.now_us()
    world.fails = False
    assert first < clock.now_us() == world.cluster()


_steps = st.one_of(
    st.tuples(st.just("wait"), st.integers(0, 2 * RESYNC_US)),
    st.tuples(st.just("wall"), st.integers(-3 * MAX_SKEW_US, 3 * MAX_SKEW_US)),
    st.tuples(st.just("cluster"), st.integers(-3 * MAX_SKEW_US, 3 * MAX_SKEW_US)),
    st.tuples(st.just("sleep"), st.integers(0, 3 * MAX_SKEW_US)),
    st.tuples(st.just("away"), st.just(0)),
    st.tuples(st.just("ask"), st.integers(1, 3)),
)


@given(st.lists(_steps, max_size=30))
def test_never_goes_back_and_is_right_whatever_happens(steps: list[tuple[str, int]]) -> None:
    world = World()
    clock = world.clock()
    given_out: list[int] = []
    for what, amount in steps:
        if what == "wait":
            world.now_us += amount
        elif what == "wall":
            world.wall_off_us = amount
        elif what == "cluster":
            world.cluster_off_us = amount
        elif what == "sleep":
            world.now_us += amount
            world.slept_us += amount
        elif what == "away":
            world.fails = not world.fails
        else:
            for _ in range(amount):
                _ask(world, clock, given_out)
    assert given_out == sorted(set(given_out))
    # Whatever was before: once all is well, it is right, after what a jump has to be told of.
    world.fails = False
    world.wall_off_us = world.cluster_off_us
    world.now_us += RESYNC_US + 1
    for _ in range(2):
        _ask(world, clock, given_out)
    assert clock.now_us() == max(world.cluster(), given_out[-1] + 1)


def _ask(world: World, clock: ClusterClock, given_out: list[int]) -> None:
    try:
        now_us = clock.now_us()
    except StoreTransientError:
        return
    # Nothing is given out where the machine is off what it last saw by more than the bound.
    assert abs(world.wall_off_us - world.seen_off_us) <= MAX_SKEW_US + DRIFT_US
    assert now_us > max(given_out, default=0)
    given_out.append(now_us)
