"""Who is in a group: the group service, its table, or a file."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Sequence
from importlib import resources
from pathlib import Path
from typing import Protocol
from urllib.parse import quote

import httpx
import msgspec

from group_scores.api.errors import (
    ApiError,
    group_not_found,
    invalid_token,
    not_a_member,
    too_large,
    unavailable,
)
from group_scores.api.settings import SAMPLE, Settings
from group_scores.api.threads import Threads
from group_scores.api.tokens import HEADER
from group_scores.stores import AddressError
from group_scores.stores.address import check_http
from group_scores.stores.groups import GroupMember

_log = logging.getLogger(__name__)
_ANSWER_BYTES = 32 << 20
_TRIES = 3
_PAUSE_S = 0.1
_TRANSIENT = (429, 502, 503, 504)
_PATH = "/private/v1/group/read/"


class Groups(Protocol):
    """A source of groups."""

    async def members(self, group_id: str, token: str | None, request_id: str) -> list[GroupMember]:
        """Return the members of a group, whatever their status, each once.

        Raises ApiError: unknown (404), too large (413), not readable now (503), or what the group
        service says of the caller (401, 403).
        """

    async def check(self) -> None:
        """Raise ApiError where no group could be read now."""

    async def close(self) -> None:
        """Release connections."""


class _Group(msgspec.Struct):
    id: str
    members: list[GroupMember] | None = None


class _File(msgspec.Struct):
    groups: list[_Group]


class _Answer(msgspec.Struct):
    result: _Result


class _Result(msgspec.Struct):
    members: list[GroupMember] | None = None


_decode_file = msgspec.json.Decoder(_File).decode
_decode_answer = msgspec.json.Decoder(_Answer).decode


def open_groups(settings: Settings, client: httpx.AsyncClient, threads: Threads) -> Groups:
    """Open the source that the settings name; raises AddressError or ServiceUnavailableError."""
    address = settings.groups
    source = file_or_scheme(address)
    if not isinstance(source, str):
        return source
    if source != "cassandra":
        url = check_http(address, "--groups")
        return ServiceGroups(url, client, settings.group_service_timeout_s, settings.members)
    # Imported here: without a cluster the driver need not be loaded.
    from group_scores.stores.cassandra import CassandraAddress, GroupTable

    return TableGroups(GroupTable(CassandraAddress.parse(address)), threads, settings.members)


def file_or_scheme(address: str) -> FileGroups | str:
    """Return the groups of a file, or what kind of server the address names; AddressError."""
    if address == SAMPLE:
        return FileGroups(
            (resources.files(__package__) / "samples" / "group.json").read_bytes(), ""
        )
    scheme, colon, _ = address.partition("://")
    if not colon:
        return FileGroups(_read(address), address)
    if scheme not in ("http", "https", "cassandra"):
        raise AddressError(f"--groups {address}: {_FORMS}")
    return scheme


_FORMS = (
    "write http(s)://BASE of the group service, cassandra://HOST:PORT/sunbird_groups, or the path "
    "of a .json file"
)


class FileGroups:
    """The groups of a JSON file, as they were at the start; `what` names it in an error.

    `{"groups": [{"id": …, "members": [{"userId", "role", "status", "createdBy", "name"}]}]}`
    """

    def __init__(self, data: bytes, what: str) -> None:
        try:
            groups = _decode_file(data).groups
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise AddressError(f"--groups {what} is no file of groups: {error}") from None
        self._groups = {group.id: group.members or [] for group in groups}

    async def members(self, group_id: str, token: str | None, request_id: str) -> list[GroupMember]:
        """See `Groups`."""
        if group_id not in self._groups:
            raise group_not_found()
        return each_once(self._groups[group_id])

    async def check(self) -> None:
        """See `Groups`."""

    async def close(self) -> None:
        """See `Groups`."""


class TableGroups:
    """The table `group_member`."""

    def __init__(self, table: _Table, threads: Threads, most: int) -> None:
        self._table = table
        self._threads = threads
        self._most = most

    async def members(self, group_id: str, token: str | None, request_id: str) -> list[GroupMember]:
        """See `Groups`."""
        found = await self._threads.run("GROUPS", self._table.members, group_id, self._most + 1)
        if found is None:
            raise group_not_found()
        return _within(found, self._most)

    async def check(self) -> None:
        """See `Groups`."""
        await self._threads.run("GROUPS", self._table.members, "-", 1)

    async def close(self) -> None:
        """See `Groups`."""
        self._table.close()


class _Table(Protocol):
    def members(self, group_id: str, most: int) -> list[GroupMember] | None: ...

    def close(self) -> None: ...


class ServiceGroups:
    """The group service, asked with the caller's own token.

    What fails for now is tried again with a pause, `timeout_s` in all. `warn` gets the reason.
    """

    def __init__(
        self,
        base: str,
        client: httpx.AsyncClient,
        timeout_s: float,
        most: int,
        warn: Callable[[str], None] = _log.warning,
    ) -> None:
        self._base = base
        self._client = client
        self._timeout_s = timeout_s
        self._most = most
        self._warn = warn

    async def members(self, group_id: str, token: str | None, request_id: str) -> list[GroupMember]:
        """See `Groups`."""
        if group_id in (".", ".."):  # a path that leads elsewhere
            raise group_not_found()
        url = f"{self._base}{_PATH}{quote(group_id, safe='')}"
        headers = {"accept": "application/json", "x-request-id": request_id}
        if token and token.isascii() and token.isprintable():
            headers[HEADER] = token
        try:
            async with asyncio.timeout(self._timeout_s):
                status, data = await self._ask(url, headers)
        except TimeoutError:
            self._warn(f"the group service did not answer in {self._timeout_s:g} s")
            raise unavailable("GROUPS") from None
        return _within(self._read(status, data), self._most)

    async def _ask(self, url: str, headers: dict[str, str]) -> tuple[int, bytes]:
        for left in reversed(range(_TRIES)):
            try:
                status, data = await self._get(url, headers)
                if status not in _TRANSIENT or not left:
                    return status, data
            except httpx.HTTPError as error:
                if not left:
                    self._warn(f"the group service is away: {type(error).__name__}")
                    raise unavailable("GROUPS") from None
            await asyncio.sleep(_PAUSE_S * (_TRIES - left) * random.uniform(0.5, 1.5))
        raise AssertionError("the last try returns or raises")

    async def _get(self, url: str, headers: dict[str, str]) -> tuple[int, bytes]:
        data = bytearray()
        async with self._client.stream(
            "GET", url, params={"fields": "members"}, headers=headers
        ) as answer:
            async for chunk in answer.aiter_bytes():
                data += chunk
                if len(data) > _ANSWER_BYTES:
                    raise _group_too_large(self._most)
        return answer.status_code, bytes(data)

    def _read(self, status: int, data: bytes) -> list[GroupMember]:
        if status == 404:
            raise group_not_found()
        if status == 401:
            raise invalid_token("The group service does not accept the token.")
        if status == 403:
            raise not_a_member()
        if status != 200:
            self._warn(f"the group service answers {status}")
            raise unavailable("GROUPS")
        try:
            return _decode_answer(data).result.members or []
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            self._warn("the group service answers what is no group")
            raise unavailable("GROUPS") from None

    async def check(self) -> None:
        """See `Groups`. It has no address that says so, and its own probes watch it."""

    async def close(self) -> None:
        """See `Groups`. The client is its owner's."""


def _within(members: Sequence[GroupMember], most: int) -> list[GroupMember]:
    if len(members) > most:
        raise _group_too_large(most)
    return each_once(members)


def _group_too_large(most: int) -> ApiError:
    return too_large(f"The group has more than {most:,} members.")


def each_once(members: Sequence[GroupMember]) -> list[GroupMember]:
    """Keep the last entry of each: one entry decides both who may see and who is seen."""
    return list({member.user_id: member for member in members}.values())


def _read(path: str) -> bytes:
    if not path.endswith(".json"):
        raise AddressError(f"--groups {path}: {_FORMS}")
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise AddressError(f"--groups {path} cannot be read: {error.strerror}") from None
