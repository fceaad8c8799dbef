"""A Redis by its address, `redis://HOST:PORT/DB`, with the password of the environment."""

from __future__ import annotations

import re
from typing import Any

import redis
from redis.credentials import CredentialProvider

from group_scores.stores.errors import AddressError, GroupScoresError, ServiceUnavailableError
from group_scores.stores.secrets import Renewed, how_to_set, secret, source_of

PASSWORD_VARIABLE = "REDIS_PASSWORD"
_ADDRESS = re.compile(r"redis://([^/:@?#]+|\[[^]]+\])(?::(\d{1,5}))?(?:/(\d{1,4}))?")
_FORM = "write redis://HOST:PORT/DB"
_ACCESS = ("NOAUTH", "NOPERM", "WRONGPASS")


class _Login(CredentialProvider):
    """The password as it is when a connection is made."""

    def __init__(self, password: str) -> None:
        self._password = Renewed(PASSWORD_VARIABLE, password)

    def get_credentials(self) -> tuple[str]:
        """See the client."""
        return (self._password.read(),)


def parse_address(address: str, what: str) -> tuple[str, int, int]:
    """Return (host, port, database number); `what` names it in the AddressError."""
    if "@" in address or "?" in address:
        raise AddressError(
            f"the redis address has no user, password or options; {_FORM}, and for a password "
            f"{how_to_set(PASSWORD_VARIABLE)}"
        )
    found = _ADDRESS.fullmatch(address)
    if not found or not 0 < int(found[2] or 6379) < 65536:
        raise AddressError(f"{address!r} is not a {what}; {_FORM}")
    return found[1].strip("[]"), int(found[2] or 6379), int(found[3] or 0)


def client_settings(address: str, what: str, timeout_s: float) -> dict[str, Any]:
    """Return what a client, of threads or of an event loop, is to be told.

    Raises AddressError for an address that is none, or a password that is not to be read.
    """
    host, port, database = parse_address(address, what)
    password = secret(PASSWORD_VARIABLE)
    return {
        "host": host,
        "port": port,
        "db": database,
        "credential_provider": _Login(password) if password else None,
        "socket_timeout": timeout_s,
        "socket_connect_timeout": timeout_s,
        "protocol": 2,  # which every server speaks
    }


def explained(error: redis.RedisError, address: str, what: str) -> GroupScoresError:
    """Return AddressError for what stays wrong, ServiceUnavailableError for what may pass."""
    text = str(error)
    if isinstance(error, redis.AuthenticationError) or text.startswith(_ACCESS):
        return AddressError(
            f"the {what} {address} refuses access ({text}); check "
            f"{source_of(PASSWORD_VARIABLE)} in the environment"
        )
    if "DB index is out of range" in text:
        return AddressError(f"{address}: {text}; correct the number at the end")
    if isinstance(error, redis.InvalidResponse):
        return AddressError(f"what answers at {address} is no Redis; check the port (often 6379)")
    if isinstance(error, redis.ResponseError):
        return ServiceUnavailableError(f"the {what} {address} refuses a command ({text})")
    return ServiceUnavailableError(
        f"the {what} {address} does not answer ({text.rstrip('.')}); "
        "start it, or correct the address"
    )
