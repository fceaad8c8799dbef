"""The convergence property on a real Cassandra: fewer examples, the same workers and faults."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from itertools import count

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from group_scores.stores import Store, StoreConfig, open_store
from tests.convergence.interleaving import Tape, World
from tests.convergence.workload import Plan, converge, plans
from tests.servers.cassandra_server import CassandraServer

seeds = st.tuples(st.integers(0, 2**32), st.integers(0, 200))
_courses = count()


@pytest.fixture(params=["user", "course"])
def store(
    request: pytest.FixtureRequest, cassandra: CassandraServer, keyspace: Callable[..., str]
) -> Iterator[Store]:
    """A store on tables of the test's own, with either primary key of the attempts."""
    name = keyspace(attempts_key=request.param)
    opened = open_store(StoreConfig(f"cassandra://{cassandra.host}:{cassandra.port}/{name}"))
    logger = logging.getLogger("group_scores")
    level = logger.level
    logger.setLevel(logging.ERROR)  # hundreds of lost calls are waited for
    yield opened
    logger.setLevel(level)
    opened.close()


def _converges(store: Store, plan: Plan, seed: tuple[int, int]) -> None:
    mine = plan.in_course(f"do_{next(_courses)}")
    converge([store] * len(mine.bundles), mine, World(Tape(*seed)))


_checks = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]


@settings(max_examples=25, suppress_health_check=_checks)
@given(plan=plans(), seed=seeds)
def test_converges(store: Store, plan: Plan, seed: tuple[int, int]) -> None:
    _converges(store, plan, seed)


@pytest.mark.soak
@settings(max_examples=1000, suppress_health_check=_checks)
@given(plan=plans(most=16), seed=seeds)
def test_converges_for_long(store: Store, plan: Plan, seed: tuple[int, int]) -> None:
    _converges(store, plan, seed)
