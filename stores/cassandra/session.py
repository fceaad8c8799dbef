"""Open one driver session for a process."""

from __future__ import annotations

import ssl

from cassandra import ConsistencyLevel, UnresolvableContactPoints
from cassandra.auth import AuthProvider, PlainTextAuthenticator
from cassandra.cluster import EXEC_PROFILE_DEFAULT, Cluster, ExecutionProfile, Session
from cassandra.policies import (
    ConstantReconnectionPolicy,
    DCAwareRoundRobinPolicy,
    FallthroughRetryPolicy,
    TokenAwarePolicy,
)
from cassandra.query import tuple_factory

from group_scores.stores.address import did_you_mean
from group_scores.stores.cassandra.address import CassandraAddress
from group_scores.stores.cassandra.faults import PASSWORD_VARIABLE, is_drivers, start_error
from group_scores.stores.cassandra.wire import IntegerTimes
from group_scores.stores.errors import AddressError
from group_scores.stores.secrets import NO_PASSWORD, Renewed, how_to_set, secret

REQUEST_TIMEOUT_S = 10.0
_START_S = 12.0  # of the 15 s in which a start has to say what is wrong
_CONTACTS = 8  # the driver tries one after the other, and none of them may answer
_RECONNECT_S = 1.0


def connect(address: CassandraAddress) -> Session:
    """Open a session on the address's cluster; close it with `session.cluster.shutdown()`.

    It uses no keyspace: a prepared statement that leaves it to the session is another statement
    where the session has another, so the tables are named with theirs.

    Raises AddressError for what only a correction helps against (a name that does not resolve,
    a wrong password, an unknown keyspace or data center), ServiceUnavailableError for a cluster
    that does not answer.
    """
    cluster = _cluster(address)
    try:
        session = cluster.connect()
        wrong = _wrong_data_center(address, cluster) or _wrong_keyspace(address, cluster)
        if wrong:
            raise wrong
    except BaseException as error:
        cluster.shutdown()
        if isinstance(error, Exception) and is_drivers(error):
            # Where no node of the data center is known, the driver finds none to connect to.
            raise _wrong_data_center(address, cluster) or start_error(address, error) from None
        raise
    session.use_client_timestamp = False  # every write brings its own time, see scores.attempt
    session.client_protocol_handler = IntegerTimes
    return session


def _cluster(address: CassandraAddress) -> Cluster:
    hosts = address.hosts[:_CONTACTS]
    try:
        return Cluster(
            hosts,
            port=address.port,
            protocol_version=4,  # 10-20 % less CPU a statement than 5, and every server has it
            execution_profiles={EXEC_PROFILE_DEFAULT: _profile(address)},
            auth_provider=_auth_provider(address),
            ssl_context=_ssl_context(address),
            compression=False,  # costs both sides more than the bytes do in one data center
            connect_timeout=min(5.0, _START_S / len(hosts)),
            control_connection_timeout=5.0,
            # A node that comes back is used again within a second or two, not after minutes.
            reconnection_policy=ConstantReconnectionPolicy(_RECONNECT_S, max_attempts=None),
            idle_heartbeat_interval=10,
        )
    except UnresolvableContactPoints:
        raise AddressError(
            f"no host of {address} has an address in the network; check the spelling"
        ) from None


def _profile(address: CassandraAddress) -> ExecutionProfile:
    local = (
        DCAwareRoundRobinPolicy(local_dc=address.dc)
        if address.dc
        else (
            DCAwareRoundRobinPolicy()  # the data center of the first contact point
        )
    )
    return ExecutionProfile(
        load_balancing_policy=TokenAwarePolicy(local),
        # Trying again is the pipeline's: a write goes out with another time, an aggregate is
        # computed again. The driver's own retries would do neither.
        retry_policy=FallthroughRetryPolicy(),
        consistency_level=ConsistencyLevel.name_to_value[address.consistency],
        request_timeout=REQUEST_TIMEOUT_S,
        row_factory=tuple_factory,
    )


class _Login(AuthProvider):  # type: ignore[misc]
    """The user, with the password as it is when a connection is made."""

    def __init__(self, username: str, password: str) -> None:
        self._username = username
        self._password = Renewed(PASSWORD_VARIABLE, password)

    def new_authenticator(self, host: str) -> PlainTextAuthenticator:
        """See the driver."""
        return PlainTextAuthenticator(self._username, self._password.read())


def _auth_provider(address: CassandraAddress) -> _Login | None:
    if address.username is None:
        return None
    password = secret(PASSWORD_VARIABLE)
    if password is None:
        raise AddressError(
            f"the address names the user {address.username!r} but {PASSWORD_VARIABLE} is not set; "
            f"{how_to_set(PASSWORD_VARIABLE)}"
        )
    return _Login(address.username, password)


def _ssl_context(address: CassandraAddress) -> ssl.SSLContext | None:
    if address.ca is None:
        return None
    try:
        context = ssl.create_default_context(cafile=address.ca)
        if address.cert and address.key:
            context.load_cert_chain(address.cert, address.key, password=NO_PASSWORD)
    except (ssl.SSLError, OSError) as error:
        raise AddressError(
            f"ca={address.ca}, cert={address.cert}, key={address.key}: {error}; give PEM files, "
            "the key without a password"
        ) from None
    return context


def _wrong_data_center(address: CassandraAddress, cluster: Cluster) -> AddressError | None:
    known = sorted({host.datacenter for host in cluster.metadata.all_hosts() if host.datacenter})
    if not address.dc or not known or address.dc in known:
        return None
    return AddressError(
        f"data center {address.dc!r} is not one of the cluster's ({', '.join(known)})"
        f"{did_you_mean(address.dc, known)}"
    )


def _wrong_keyspace(address: CassandraAddress, cluster: Cluster) -> AddressError | None:
    if address.keyspace in cluster.metadata.keyspaces:
        return None
    return AddressError(
        f"keyspace {address.keyspace!r} does not exist on {address}; create it first"
        f"{did_you_mean(address.keyspace, cluster.metadata.keyspaces)}"
    )
