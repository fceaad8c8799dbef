"""Open one driver session for a process, and tell a wrong setting from a server that is away."""

from __future__ import annotations

import os
import ssl
import struct
from typing import Any

from cassandra import (
    AuthenticationFailed,
    ConsistencyLevel,
    InvalidRequest,
    OperationTimedOut,
    RequestExecutionException,
    Unauthorized,
    UnresolvableContactPoints,
)
from cassandra.auth import PlainTextAuthProvider
from cassandra.cluster import (
    EXEC_PROFILE_DEFAULT,
    Cluster,
    ExecutionProfile,
    NoHostAvailable,
    Session,
)
from cassandra.connection import ConnectionException
from cassandra.policies import (
    ConstantReconnectionPolicy,
    DCAwareRoundRobinPolicy,
    FallthroughRetryPolicy,
    TokenAwarePolicy,
)
from cassandra.protocol import ErrorMessage
from cassandra.query import tuple_factory

from group_scores.stores.address import did_you_mean
from group_scores.stores.cassandra.address import CassandraAddress
from group_scores.stores.errors import (
    AddressError,
    ServiceUnavailableError,
    StoreFault,
    StoreRefusedError,
    StoreTransientError,
)

PASSWORD_VARIABLE = "CASSANDRA_PASSWORD"
REQUEST_TIMEOUT_S = 10.0
_START_S = 12.0  # of the 15 s in which a start has to say what is wrong
_RECONNECT_S = 1.0

TRANSIENT_ERRORS = (
    NoHostAvailable,
    OperationTimedOut,
    RequestExecutionException,
    ConnectionException,
    ErrorMessage,
    OSError,
)


def connect(address: CassandraAddress) -> Session:
    """Open a session on the address's keyspace; close it with `session.cluster.shutdown()`.

    Raises AddressError for what only a correction helps against (a name that does not resolve,
    a wrong password, an unknown keyspace or data center), ServiceUnavailableError for a cluster
    that does not answer.
    """
    cluster = Cluster(
        address.hosts,
        port=address.port,
        protocol_version=4,  # 10-20 % less Python CPU a statement than 5, and every server has it
        execution_profiles={EXEC_PROFILE_DEFAULT: _profile(address)},
        auth_provider=_auth_provider(address),
        ssl_context=_ssl_context(address),
        connect_timeout=max(2.0, min(5.0, _START_S / (2 * len(address.hosts)))),
        control_connection_timeout=5.0,
        # A node that comes back is used again within a second or two, not after minutes.
        reconnection_policy=ConstantReconnectionPolicy(_RECONNECT_S, max_attempts=None),
        idle_heartbeat_interval=10,
    )
    try:
        session = cluster.connect()
        _check_data_center(address, cluster)
        if address.keyspace not in cluster.metadata.keyspaces:
            raise AddressError(
                f"keyspace {address.keyspace!r} does not exist on {address}"
                f"{did_you_mean(address.keyspace, cluster.metadata.keyspaces)}; create it first"
            )
        session.set_keyspace(address.keyspace)
    except BaseException as error:
        cluster.shutdown()
        if isinstance(error, UnresolvableContactPoints):
            raise AddressError(
                f"no host of {address} has an address; check the spelling"
            ) from None
        if isinstance(error, TRANSIENT_ERRORS):
            raise _start_error(address, error) from None
        raise
    session.use_client_timestamp = False  # every write brings its own time, see scores.attempt
    return session


def fault(error: Exception) -> StoreFault:
    """Tell what an error of a statement means for the item it was for.

    Raises what neither a repetition nor a dead letter can mend, such as a missing permission.
    """
    if isinstance(error, Unauthorized):
        raise AddressError(f"{_line(error)}; grant it to the user of the address") from error
    if isinstance(error, struct.error | UnicodeEncodeError):
        return StoreRefusedError(f"a value cannot be encoded for Cassandra: {error}")
    if isinstance(error, InvalidRequest):
        return StoreRefusedError(f"Cassandra refuses the statement: {_line(error)}")
    if isinstance(error, TRANSIENT_ERRORS):
        return StoreTransientError(f"Cassandra: {type(error).__name__}: {_line(error)}")
    raise error


def _profile(address: CassandraAddress) -> ExecutionProfile:
    local = DCAwareRoundRobinPolicy(local_dc=address.dc) if address.dc else (
        DCAwareRoundRobinPolicy()  # the data center of the first contact point
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


def _auth_provider(address: CassandraAddress) -> PlainTextAuthProvider | None:
    if address.username is None:
        return None
    password = os.environ.get(PASSWORD_VARIABLE)
    if not password:
        raise AddressError(
            f"the address names the user {address.username!r} but {PASSWORD_VARIABLE} is not set; "
            "set it in the environment"
        )
    return PlainTextAuthProvider(address.username, password)


def _ssl_context(address: CassandraAddress) -> ssl.SSLContext | None:
    if address.ca is None:
        return None
    try:
        context = ssl.create_default_context(cafile=address.ca)
        if address.cert and address.key:
            context.load_cert_chain(address.cert, address.key)
    except (ssl.SSLError, OSError) as error:
        raise AddressError(
            f"ca={address.ca}, cert={address.cert}, key={address.key}: {error}; give PEM files"
        ) from None
    return context


def _check_data_center(address: CassandraAddress, cluster: Cluster) -> None:
    known = sorted({host.datacenter for host in cluster.metadata.all_hosts() if host.datacenter})
    if address.dc and address.dc not in known:
        raise AddressError(
            f"data center {address.dc!r} is not one of the cluster's ({', '.join(known)})"
            f"{did_you_mean(address.dc, known)}"
        )


def _start_error(address: CassandraAddress, error: BaseException) -> Exception:
    causes: list[BaseException] = [error]
    if isinstance(error, NoHostAvailable) and isinstance(error.errors, dict):
        causes += [cause for cause in error.errors.values() if isinstance(cause, BaseException)]
    if any(isinstance(cause, AuthenticationFailed) for cause in causes):
        who = f"user {address.username!r}" if address.username else "an anonymous user"
        return AddressError(
            f"{address} does not let {who} in; give ?username= and the password "
            f"in {PASSWORD_VARIABLE}"
        )
    detail = _line(causes[-1])
    hint = "start it, or correct the address"
    if any(isinstance(cause, ssl.SSLError) for cause in causes):
        hint = "check ca=, and that the nodes' certificates name these hosts"
    return ServiceUnavailableError(f"Cassandra at {address} does not answer ({detail}); {hint}")


def _line(error: Any) -> str:
    return " ".join(str(error).split())[:300]
