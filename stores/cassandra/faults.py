"""Tell what an error of the driver means: for one item, or for a start that failed."""

from __future__ import annotations

import socket
import ssl
import struct
from collections.abc import Iterator

from cassandra import (
    AuthenticationFailed,
    DriverException,
    InvalidRequest,
    OperationTimedOut,
    RequestExecutionException,
    RequestValidationException,
    Unauthorized,
    Unavailable,
)
from cassandra.cluster import NoHostAvailable
from cassandra.connection import ConnectionException, ConnectionShutdown, ProtocolError
from cassandra.protocol import ErrorMessage, ProtocolException

from group_scores.stores.cassandra.address import CassandraAddress
from group_scores.stores.errors import (
    AddressError,
    GroupScoresError,
    ServiceUnavailableError,
    StoreFault,
    StoreRefusedError,
    StoreTransientError,
)
from group_scores.stores.secrets import how_to_set, source_of

PASSWORD_VARIABLE = "CASSANDRA_PASSWORD"
_PROBE_S = 2.0
_TRANSIENT = (
    NoHostAvailable,
    OperationTimedOut,
    RequestExecutionException,
    ConnectionException,
    ErrorMessage,
    OSError,
)


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
    if isinstance(error, _TRANSIENT):
        return StoreTransientError(f"Cassandra: {type(error).__name__}: {_line(error)}")
    raise error


def start_error(address: CassandraAddress, error: Exception) -> GroupScoresError:
    """Tell why a store could not be opened, and what to do about it."""
    causes = list(_causes(error))
    for explain in (_login, _tls, _protocol, _hung_up, _statement):
        for cause in causes:
            reason = explain(address, cause)
            if reason:
                return AddressError(f"{address} {reason}")
    reasons = dict.fromkeys(map(_reason, causes))
    if isinstance(error, Unavailable):
        return ServiceUnavailableError(
            f"{address} has too few live nodes for the consistency {address.consistency} "
            f"({error.alive_replicas} of {error.required_replicas}); start them, or correct "
            "?consistency="
        )
    return ServiceUnavailableError(
        f"Cassandra at {address} does not answer ({', '.join(filter(None, reasons))}); "
        "start it, or correct the address"
    )


def is_drivers(error: BaseException) -> bool:
    """Tell whether an error is one of the driver's or the network's, not one of the program."""
    return isinstance(error, (DriverException, *_TRANSIENT))


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The errors that led to this one, a host each where the driver tried several."""
    found = error.errors if isinstance(error, NoHostAvailable) else None
    if isinstance(found, dict) and found:
        for cause in found.values():
            yield from _causes(cause)
    else:
        yield error


def _login(address: CassandraAddress, error: BaseException) -> str | None:
    # A node that cannot read its roles now says so in the same kind of error.
    if not isinstance(error, AuthenticationFailed) or "Unable to perform" in str(error):
        return None
    if address.username is None:
        return f"wants a login; give ?username=, and {how_to_set(PASSWORD_VARIABLE)}"
    return (
        f"does not let the user {address.username!r} in; correct ?username= or the password "
        f"in {source_of(PASSWORD_VARIABLE)}"
    )


def _tls(address: CassandraAddress, error: BaseException) -> str | None:
    text = _line(error)
    if isinstance(error, ssl.SSLCertVerificationError) or "CERTIFICATE_VERIFY_FAILED" in text:
        return (
            f"has a certificate that ca={address.ca} does not vouch for ({_reason(error)}); give "
            "the authority that signed it, and the address that it names"
        )
    if isinstance(error, ssl.SSLError) or "[SSL" in text:
        if "alert" in text.lower():
            return f"refuses this TLS client ({_reason(error)}); check cert= and key="
        return f"does not speak TLS ({_reason(error)}); drop ca=, or correct the port"
    return None


def _protocol(address: CassandraAddress, error: BaseException) -> str | None:
    if isinstance(error, ProtocolException | ProtocolError) or "protocol version" in _line(error):
        hint = "correct the port" if address.ca else "correct the port, or give ca= for a TLS port"
        return f"does not speak version 4 of Cassandra's protocol; {hint}"
    return None


def _hung_up(address: CassandraAddress, error: BaseException) -> str | None:
    """A node that wants TLS hangs up on a client that does not, without a word."""
    if address.ca or not isinstance(error, ConnectionResetError | ConnectionShutdown):
        return None
    if any(_speaks_tls(host, address.port) for host in address.hosts[:1]):
        return "is a TLS port; give ca=, the authority of the nodes' certificates"
    return None


def _speaks_tls(host: str, port: int) -> bool:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # nothing is sent: the question is only who answers
    try:
        with (
            socket.create_connection((host, port), _PROBE_S) as plain,
            context.wrap_socket(plain),
        ):
            return True
    except OSError as error:
        return "alert" in str(error).lower()


def _statement(address: CassandraAddress, error: BaseException) -> str | None:
    if isinstance(error, Unauthorized):
        return f"does not allow it: {_line(error)}; grant it to the user of the address"
    if isinstance(error, RequestValidationException):
        return f"refuses a statement: {_line(error)}"
    return None


def _reason(error: BaseException) -> str:
    """Say it in the words of the system, without the driver's around them."""
    text = _line(error)
    for before in ("Last error: ", "errors="):
        text = text.rpartition(before)[2]
    return text.removesuffix(", last_host=None")


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]
