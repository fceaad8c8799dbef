"""Sending: bounded, in order, to the right node; one item's fault is not its neighbours'."""

from __future__ import annotations

import struct
from types import SimpleNamespace
from typing import Any

import pytest
from cassandra import (
    InvalidRequest,
    OperationTimedOut,
    Unauthorized,
    Unavailable,
    WriteFailure,
    WriteTimeout,
)
from cassandra.cluster import NoHostAvailable
from cassandra.connection import ConnectionShutdown, DefaultEndPoint
from cassandra.metadata import KeyspaceMetadata, Metadata
from cassandra.policies import (
    DCAwareRoundRobinPolicy,
    SimpleConvictionPolicy,
    TokenAwarePolicy,
)
from cassandra.pool import Host
from cassandra.protocol import OverloadedErrorMessage, ServerError
from cassandra.query import PreparedStatement

from group_scores.stores import (
    AddressError,
    StoreRefusedError,
    StoreTransientError,
)
from group_scores.stores.cassandra.faults import fault
from group_scores.stores.cassandra.sending import Sender
from group_scores.stores.cassandra.wire import Bound


class FakeSession:
    """Answers each statement (a list of numbers) with itself, or fails where `fails` says so."""

    def __init__(self, fails: dict[int, Exception] | None = None, at_once: bool = False) -> None:
        self.fails = fails or {}
        self.at_once = at_once
        self.open = self.most = 0
        self.sent: list[list[int]] = []
        self.policy: Any = None
        self.cluster = SimpleNamespace(metadata=Metadata())

    def get_execution_profile(self, _: object) -> object:
        return SimpleNamespace(load_balancing_policy=self.policy)

    def execute_async(self, statement: list[int]) -> Any:
        self.sent.append(statement)
        error = next((self.fails[n] for n in statement if n in self.fails), None)
        if error and self.at_once:
            raise error
        self.open += 1
        self.most = max(self.most, self.open)

        def result() -> list[tuple[int]]:
            self.open -= 1
            if error:
                raise error
            return [(n,) for n in statement]

        return SimpleNamespace(result=result)


def send(session: FakeSession, groups: list[list[int]], in_flight: int = 4) -> list[Any]:
    sender = Sender(session, "ks", in_flight)  # type: ignore[arg-type]
    return list(sender.send(groups, lambda group: group))


def test_comes_back_in_order_and_never_more_than_allowed_is_under_way() -> None:
    session = FakeSession()
    groups = [[2 * n, 2 * n + 1] for n in range(30)]
    assert send(session, groups) == [(group, [(n,) for n in group]) for group in groups]
    assert session.most == 4
    assert session.open == 0


@pytest.mark.parametrize("at_once", [True, False])
def test_refused_group_is_sent_again_one_by_one(at_once: bool) -> None:
    session = FakeSession({3: InvalidRequest("bad key")}, at_once)
    outcomes = {tuple(group): outcome for group, outcome in send(session, [[1], [2, 3, 4]])}
    assert list(outcomes) == [(1,), (2,), (3,), (4,)]
    refused = outcomes.pop((3,))
    assert isinstance(refused, StoreRefusedError)
    assert "bad key" in str(refused)
    assert list(outcomes.values()) == [[(1,)], [(2,)], [(4,)]]
    assert session.sent == [[1], [2, 3, 4], [2], [3], [4]]


def test_group_that_fails_for_now_is_not_sent_again() -> None:
    """It may have taken effect: to send it once more at the same time would double its lists."""
    session = FakeSession({3: OperationTimedOut("late")})
    (_, first), (group, failed) = send(session, [[1], [2, 3]])
    assert first == [(1,)]
    assert group == [2, 3]
    assert isinstance(failed, StoreTransientError)
    assert session.sent == [[1], [2, 3]]


def test_what_no_repetition_mends_is_raised() -> None:
    with pytest.raises(AddressError, match="no permission; grant it"):
        send(FakeSession({2: Unauthorized("no\n permission")}), [[1], [2]])
    with pytest.raises(ZeroDivisionError):
        send(FakeSession({1: ZeroDivisionError()}), [[1]])


TIMES_OUT = {"consistency": 6, "required_responses": 2, "received_responses": 1}


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (OperationTimedOut("late"), StoreTransientError),
        (NoHostAvailable("none", {}), StoreTransientError),
        (ConnectionShutdown("closed"), StoreTransientError),
        (ConnectionResetError("reset"), StoreTransientError),
        (WriteTimeout("slow", write_type=0, **TIMES_OUT), StoreTransientError),
        (WriteFailure("disk", write_type=0, **TIMES_OUT), StoreTransientError),
        (
            Unavailable("two", consistency=6, required_replicas=2, alive_replicas=1),
            StoreTransientError,
        ),
        (OverloadedErrorMessage(0x1001, "busy", None), StoreTransientError),
        (ServerError(0x0000, "broken", None), StoreTransientError),
        (InvalidRequest("too long"), StoreRefusedError),
        (struct.error("too long"), StoreRefusedError),
        ("\ud800".encode, StoreRefusedError),
    ],
)
def test_faults(error: Any, kind: type[Exception]) -> None:
    if callable(error):
        with pytest.raises(UnicodeEncodeError) as raised:
            error()
        error = raised.value
    found = fault(error)
    assert type(found) is kind
    assert "\n" not in str(found)


def test_long_words_of_a_server_are_cut() -> None:
    assert len(str(fault(InvalidRequest("x" * 10_000)))) < 400


# The node that a partition's statements go to, in a cluster of two data centres

HOSTS = [("dc1", n) for n in range(1, 5)] + [("dc2", n) for n in range(5, 9)]


@pytest.fixture(params=["dc1", "dc2"])
def cluster(request: pytest.FixtureRequest) -> tuple[Sender, TokenAwarePolicy, list[Host]]:
    """All the nodes; the first four are those of the local data centre."""
    hosts = []
    for center, number in HOSTS:
        host = Host(DefaultEndPoint(f"10.0.0.{number}"), SimpleConvictionPolicy)
        host.set_location_info(center, "rack1")
        host.set_up()
        hosts.append(host)
    session = FakeSession()
    metadata = session.cluster.metadata
    metadata.keyspaces["ks"] = KeyspaceMetadata(
        "ks", True, "NetworkTopologyStrategy", {"dc1": "2", "dc2": "2"}
    )
    step = 2**64 // len(hosts)
    metadata.rebuild_token_map(
        "Murmur3Partitioner",
        {host: [str(-(2**63) + n * step + 1)] for n, host in enumerate(hosts)},
    )
    policy = TokenAwarePolicy(DCAwareRoundRobinPolicy(request.param))
    policy.populate(SimpleNamespace(metadata=metadata, endpoints_resolved=[]), hosts)
    session.policy = policy
    hosts.sort(key=lambda host: host.datacenter != request.param)
    return Sender(session, "ks", 1), policy, hosts  # type: ignore[arg-type]


def plan(policy: TokenAwarePolicy, partition: bytes) -> list[Host]:
    prepared = PreparedStatement([], b"id", [0], "INSERT", "ks", 4, None, None)
    statement = Bound(prepared, [], partition)
    statement.keyspace = "ks"
    return list(policy.make_query_plan(None, statement))


def test_replica_is_the_first_node_that_the_driver_tries(
    cluster: tuple[Sender, TokenAwarePolicy, list[Host]],
) -> None:
    sender, policy, hosts = cluster
    chosen = set()
    for number in range(200):
        partition = f"learner {number}".encode()
        replica = sender.replica(partition)
        assert isinstance(replica, Host)
        first, second, *others = plan(policy, partition)
        assert replica is first
        assert {first, second} < set(hosts[:4]), "a replica of the local data centre"
        assert set(others) == set(hosts[:4]) - {first, second}
        chosen.add(replica)
    assert chosen == set(hosts[:4])


def test_replica_that_is_down_is_passed_over(
    cluster: tuple[Sender, TokenAwarePolicy, list[Host]],
) -> None:
    sender, policy, hosts = cluster
    hosts[0].set_down()
    policy.on_down(hosts[0])
    for number in range(100):
        partition = f"learner {number}".encode()
        assert sender.replica(partition) is plan(policy, partition)[0]
        assert sender.replica(partition) is not hosts[0]


def test_no_replica_is_known_where_the_keyspace_has_none(
    cluster: tuple[Sender, TokenAwarePolicy, list[Host]],
) -> None:
    sender, _, hosts = cluster
    for host in hosts:
        host.set_down()
    assert sender.replica(b"learner") is None
