"""What the server is told: the options of `group-scores serve`, checked."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

from group_scores.reports.names import ContentService
from group_scores.stores import AddressError, StoreConfig
from group_scores.stores.redis_address import parse_address

SAMPLE = "sample"
"""What `groups` is for the group that comes with the package."""

SAMPLE_PAGE = "/groups/sample/activities/do_425145315464864386527"
LOCAL_NAMES = ("localhost", "127.0.0.1", "[::1]")


@dataclass(frozen=True)
class Settings:
    """One server.

    `groups` is an address as the command line takes it, or `sample`. `names` is a file of names of
    assessments, `content_service` the address of a service that is asked for others. `cache_s` is
    for how many seconds the rows of a group may be used again, `cache` a Redis that keeps them. The
    limits: `body_bytes` of a request, `members` of a group, `requests` at work at once, `store_s`
    seconds for a read of the store. Of each read `threads` run at once.
    """

    store: str
    groups: str
    listen: str = "127.0.0.1:8000"
    jwks: str | None = None
    public_keys: str | None = None
    issuer: str | None = None
    audience: str | None = None
    cache_s: float = 0
    cache: str | None = None
    names: str | None = None
    content_service: str | None = None
    group_service_timeout_s: float = 5
    body_bytes: int = 256 * 1024
    members: int = 10_000
    requests: int = 256
    store_s: float = 10
    threads: int = 16

    @property
    def has_keys(self) -> bool:
        """Whether callers have to show a token."""
        return bool(self.jwks or self.public_keys)

    @property
    def host_and_port(self) -> tuple[str, int]:
        """Where to listen. Raises AddressError."""
        host, colon, port = self.listen.rpartition(":")
        if not (colon and host and port.isascii() and port.isdigit() and int(port) < 65536):
            raise AddressError(f"--listen {self.listen}: write HOST:PORT, such as 127.0.0.1:8000")
        return host.strip("[]"), int(port)

    def check(self) -> None:
        """Raise AddressError for what is wrong by itself, without opening anything."""
        host, _ = self.host_and_port
        StoreConfig(self.store).check()
        if self.content_service:
            ContentService.for_server(self.content_service)
        if self.cache:
            parse_address(self.cache, "cache")
            if not self.cache_s:
                raise AddressError("--cache without --cache-s: say how long rows may be kept there")
        if self.jwks and self.public_keys:
            raise AddressError("--jwks and --public-keys: give one of the two")
        if self.has_keys:
            return
        for name, value in (("--issuer", self.issuer), ("--audience", self.audience)):
            if value:
                raise AddressError(f"{name} is about tokens; give --jwks or --public-keys too")
        if not _is_loopback(host):
            raise AddressError(
                f"--listen {self.listen} without --jwks or --public-keys: whoever reaches it could "
                "read every group; give the keys, or listen on 127.0.0.1"
            )


def is_local(host: str) -> bool:
    """Tell whether a request's `host` header names this machine as itself."""
    name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
    return name.lower() in LOCAL_NAMES or _is_loopback(name.strip("[]"))


def _is_loopback(host: str) -> bool:
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
