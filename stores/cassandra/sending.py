"""Send statements, a bounded number at a time, and keep the fault of one from the others."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import Any, TypeVar

from cassandra.cluster import EXEC_PROFILE_DEFAULT, Session
from cassandra.policies import HostDistance
from cassandra.query import Statement

from group_scores.stores.cassandra.faults import fault
from group_scores.stores.errors import StoreFault, StoreRefusedError

M = TypeVar("M")
Rows = list[tuple[Any, ...]]


class Sender:
    """Sends groups of items, at most `in_flight` at a time. Threads may share it."""

    def __init__(self, session: Session, keyspace: str, in_flight: int) -> None:
        self._session = session
        self._keyspace = keyspace
        self._in_flight = in_flight
        profile = session.get_execution_profile(EXEC_PROFILE_DEFAULT)
        self._policy = profile.load_balancing_policy

    def replica(self, partition: bytes) -> Hashable:
        """Return the node that the driver sends a statement about the partition to."""
        for host in self._session.cluster.metadata.get_replicas(self._keyspace, partition):
            if host.is_up and self._policy.distance(host) == HostDistance.LOCAL:
                return host  # type: ignore[no-any-return]
        return None

    def send(
        self, groups: Iterable[list[M]], statement: Callable[[list[M]], Statement]
    ) -> Iterator[tuple[list[M], Rows | StoreFault]]:
        """Send one statement for each group and yield what came of it.

        A group that Cassandra refuses is sent again one by one: nothing of it was executed, and
        one item must not take the others with it.
        """
        refused: list[M] = []
        for group, outcome in self._send(groups, statement):
            if isinstance(outcome, StoreRefusedError) and len(group) > 1:
                refused += group
            else:
                yield group, outcome
        yield from self._send(([member] for member in refused), statement)

    def _send(
        self, groups: Iterable[list[M]], statement: Callable[[list[M]], Statement]
    ) -> Iterator[tuple[list[M], Rows | StoreFault]]:
        pending: deque[tuple[list[M], Any]] = deque()
        for group in groups:
            if len(pending) >= self._in_flight:
                yield _outcome(*pending.popleft())
            try:
                sent = self._session.execute_async(statement(group))
            except Exception as error:
                sent = error
            pending.append((group, sent))
        while pending:
            yield _outcome(*pending.popleft())


def _outcome(group: list[M], sent: Any) -> tuple[list[M], Rows | StoreFault]:
    try:
        if isinstance(sent, Exception):
            raise sent
        return group, list(sent.result())
    except Exception as error:
        return group, fault(error)
