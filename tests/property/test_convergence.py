"""Whatever the order, the faults and the crashes: in the end the rows equal a recomputation.

The workers run the pipeline's own stage functions. What is drawn: the attempts, their deliveries
and bundles, the interleaving of every store call, calls that are lost, that time out although
they took effect, or that take effect later, crashes between any two calls, steps of the clocks.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, find, given, settings
from hypothesis import strategies as st

from group_scores.scores import ActivityAgg
from group_scores.stores import AttemptWrite, Pruning, StoreFault
from group_scores.stores.sqlite import SqliteStore
from tests.convergence.interleaving import Tape, World
from tests.convergence.model_store import Cluster, ModelStore
from tests.convergence.workload import (
    Event,
    Plan,
    converge,
    plans,
    prune_snapshot,
)


@pytest.fixture(scope="module", autouse=True)
def _quiet() -> Iterator[None]:
    """Thousands of lost calls are waited for; each would be a line of log."""
    logger = logging.getLogger("group_scores")
    before = logger.level
    logger.setLevel(logging.ERROR)
    yield
    logger.setLevel(before)


seeds = st.tuples(st.integers(0, 2**32), st.integers(0, 300))
_SLOW = [HealthCheck.too_slow, HealthCheck.data_too_large]
_SEARCH = settings(
    max_examples=2000,
    derandomize=True,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=_SLOW,
)


class SteppingClocks:
    """The wall clocks of the workers: they step, and are set right when the tape is over."""

    def __init__(self, cluster: Cluster, workers: int) -> None:
        self._cluster = cluster
        self._off_us = [0] * workers

    def wall_us(self, worker: int) -> int:
        return self._cluster.us + self._off_us[worker]

    def step(self, tape: Tape) -> None:
        self._cluster.us += (1, 700, 40_000_000)[tape.next(3)]
        worker = tape.next(len(self._off_us))
        if tape.next(4) == 1:
            self._off_us[worker] = (0, -900_000, 900_000, -60_000_000, 60_000_000)[tape.next(5)]
        if tape.over:
            self._off_us = [0] * len(self._off_us)


def model_stores(plan: Plan, tape: Tape) -> tuple[list[ModelStore], World]:
    """Return a store a worker on one cluster, each with a clock that steps."""
    cluster = Cluster()
    clocks = SteppingClocks(cluster, len(plan.bundles))
    stores = [
        ModelStore(cluster, lambda worker=worker: clocks.wall_us(worker))
        for worker in range(len(plan.bundles))
    ]
    return stores, World(tape, on_step=clocks.step)


@settings(suppress_health_check=_SLOW, max_examples=300)
@given(plan=plans(), seed=seeds)
def test_converges_by_the_rules_of_cells(plan: Plan, seed: tuple[int, int]) -> None:
    stores, world = model_stores(plan, Tape(*seed))
    converge(stores, plan, world)


@settings(suppress_health_check=_SLOW, max_examples=60)
@given(plan=plans(), seed=seeds)
def test_converges_on_sqlite(plan: Plan, seed: tuple[int, int]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = SqliteStore(f"{folder}/scores.db")
        try:
            converge([store] * len(plan.bundles), plan, World(Tape(*seed)))
        finally:
            store.close()


batch_runs = st.lists(st.integers(0, 30), min_size=1, max_size=2)


@settings(suppress_health_check=_SLOW, max_examples=300)
@given(plan=plans(), seed=seeds, late=batch_runs)
def test_converges_beside_batch_runs_of_old_snapshots(
    plan: Plan, seed: tuple[int, int], late: list[int]
) -> None:
    """What a stream wrote since the snapshot is never lost, wherever either crashes."""
    stores, world = model_stores(plan, Tape(*seed))
    converge(stores, plan, world, late)


@settings(suppress_health_check=_SLOW, max_examples=300)
@given(plan=plans(), seed=seeds, late=batch_runs)
def test_converges_beside_verifications_that_repair_and_prune(
    plan: Plan, seed: tuple[int, int], late: list[int]
) -> None:
    """Every row holds an orphan of what comes in later, or never: those alone are taken out."""
    stores, world = model_stores(plan, Tape(*seed))
    converge(stores, plan, world, late, put_through=prune_snapshot)


@settings(suppress_health_check=_SLOW, max_examples=40)
@given(plan=plans(), seed=seeds, late=batch_runs)
def test_converges_on_sqlite_beside_verifications(
    plan: Plan, seed: tuple[int, int], late: list[int]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = SqliteStore(f"{folder}/scores.db")
        try:
            stores = [store] * len(plan.bundles)
            converge(stores, plan, World(Tape(*seed)), late, put_through=prune_snapshot)
        finally:
            store.close()


# The property must fail when what it rests on is taken away.


class _Wrapped:
    def __init__(self, store: ModelStore) -> None:
        self._store = store

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


class WithoutWriteTimes(_Wrapped):
    """Every write has the time at which it arrives, as a plain statement has."""

    def write_attempts(self, writes: Sequence[AttemptWrite]) -> list[StoreFault | None]:
        now_us = self._store.arrival_us()
        return self._store.write_attempts(
            [AttemptWrite(w.attempt, now_us, w.now_us, w.create) for w in writes]
        )

    def write_aggregates(self, updates: Sequence[ActivityAgg]) -> list[StoreFault | None]:
        now_us = self._store.arrival_us()
        return self._store.write_aggregates(
            [ActivityAgg(u.key, now_us, u.metrics, u.details) for u in updates]
        )


class SkippingUnchanged(_Wrapped):
    """A key whose value the row already shows is not written."""

    def write_aggregates(self, updates: Sequence[ActivityAgg]) -> list[StoreFault | None]:
        return self._store.write_aggregates([self._changed(update) for update in updates])

    def _changed(self, update: ActivityAgg) -> ActivityAgg:
        (row,) = self._store.read_aggregates([update.key])
        changed = {k: v for k, v in update.metrics.items() if row.aggregates.get(k) != v}
        return ActivityAgg(update.key, update.t_us, changed, update.details)


def _diverges(
    wrap: type[_Wrapped], plan: Plan, seed: tuple[int, int], order: Sequence[int] = ()
) -> bool:
    stores, world = model_stores(plan, Tape(*seed))
    world.order = order
    try:
        converge([wrap(store) for store in stores], plan, world)
    except AssertionError:
        return True
    return False


def test_fails_without_write_times() -> None:
    plan, seed = find(
        st.tuples(plans(), seeds),
        lambda drawn: _diverges(WithoutWriteTimes, *drawn),
        settings=_SEARCH,
    )
    # ... and with them, the very same run converges.
    assert not _diverges(_Wrapped, plan, seed)


def _fails_with(wrap: type[_Wrapped], **options: Any) -> None:
    """Find a batch run that diverges where its store is wrapped so, and does not otherwise."""

    def diverges(wrap: type[_Wrapped], plan: Plan, seed: tuple[int, int], late: list[int]) -> bool:
        stores, world = model_stores(plan, Tape(*seed))
        try:
            converge(stores, plan, world, late, wrap(stores[0]), **options)
        except AssertionError:
            return True
        return False

    drawn = find(
        st.tuples(plans(), seeds, batch_runs),
        lambda drawn: diverges(wrap, *drawn),
        settings=_SEARCH,
    )
    assert not diverges(_Wrapped, *drawn)


def test_fails_when_a_batch_run_writes_with_the_time_of_its_writing() -> None:
    """As the batch job in use today does: what is old comes over what is new."""
    _fails_with(WithoutWriteTimes)


class PruningNow(_Wrapped):
    """What is taken out is taken out as of the time at which it is."""

    def prune_aggregates(self, prunings: Sequence[Pruning]) -> list[StoreFault | None]:
        now_us = self._store.arrival_us()
        return self._store.prune_aggregates(
            [Pruning(one.key, now_us, one.names, one.updated) for one in prunings]
        )


class PruningNothing(_Wrapped):
    def prune_aggregates(self, prunings: Sequence[Pruning]) -> list[StoreFault | None]:
        return [None] * len(prunings)


@pytest.mark.parametrize("wrap", [PruningNow, PruningNothing])
def test_fails_when_it_is_pruned_with_another_time_or_not_at_all(wrap: type[_Wrapped]) -> None:
    _fails_with(wrap, put_through=prune_snapshot)


def test_fails_when_what_looks_unchanged_is_skipped() -> None:
    """One attempt is scored down while another worker adds one that scores as the first did.

    Too rare to be drawn: the first worker is about to write the low score when the second finds
    that the row already shows the high one, and leaves it.
    """
    first = Event("u1", "b1", "c1", "a1", 1_600_000_000_000, (5.0,))
    lower = replace(first, time_ms=first.time_ms + 1, scores=(2.0,))
    other = replace(first, attempt="a2")
    plan = Plan([[[first], [lower]], [[other]]], before=[], retry_s=[0, 0])
    # Five calls a bundle: read, time, write, read, write. The first worker stops before its tenth.
    order = [0] * 10 + [1] * 6
    assert _diverges(SkippingUnchanged, plan, (0, 0), order)
    assert not _diverges(_Wrapped, plan, (0, 0), order)
