"""One group, read once by what is no server: the members that `serve` would show."""

from __future__ import annotations

import asyncio
from typing import NoReturn

import httpx

from group_scores.api.errors import ApiError
from group_scores.api.groups import FileGroups, ServiceGroups, each_once, file_or_scheme
from group_scores.stores.address import check_http
from group_scores.stores.errors import AddressError, ServiceUnavailableError
from group_scores.stores.groups import GroupMember
from group_scores.stores.secrets import how_to_set, secret

TOKEN = "GROUP_SERVICE_TOKEN"
_MOST = 100_000
_TIMEOUT_S = 15.0
_REQUEST_ID = "report"


def active_members(address: str, group_id: str) -> list[GroupMember]:
    """Return the active members of a group; `address` is as in `Settings.groups`.

    The group service gets the token that is in the environment, where there is one. Raises
    AddressError, for an unknown group too, and ServiceUnavailableError.
    """
    return [member for member in _members(address, group_id) if member.is_active]


def _members(address: str, group_id: str) -> list[GroupMember]:
    source = file_or_scheme(address)
    if source == "cassandra":
        return _of_table(address, group_id)
    try:
        if isinstance(source, FileGroups):
            return asyncio.run(source.members(group_id, None, _REQUEST_ID))
        return asyncio.run(_of_service(check_http(address, "--groups"), group_id))
    except ApiError as error:
        _refuse(address, group_id, error)


async def _of_service(url: str, group_id: str) -> list[GroupMember]:
    reasons: list[str] = []
    async with httpx.AsyncClient(trust_env=False, timeout=_TIMEOUT_S) as client:
        service = ServiceGroups(url, client, _TIMEOUT_S, _MOST, reasons.append)
        try:
            return await service.members(group_id, secret(TOKEN), _REQUEST_ID)
        except ApiError as error:
            if error.status < 500:
                raise
            why = ", ".join(reasons) or error.message
            raise ServiceUnavailableError(f"--groups {url}: {why}; nothing was written") from None


def _of_table(address: str, group_id: str) -> list[GroupMember]:
    # Imported here: without a cluster the driver need not be loaded.
    from group_scores.stores.cassandra import CassandraAddress, GroupTable

    table = GroupTable(CassandraAddress.parse(address))
    try:
        found = table.members(group_id, _MOST + 1)
    finally:
        table.close()
    if found is None:
        raise AddressError(_unknown(address, group_id))
    if len(found) > _MOST:
        raise AddressError(f"--group {group_id} has more than {_MOST:,} members")
    return each_once(found)


def _refuse(address: str, group_id: str, error: ApiError) -> NoReturn:
    """Say what the caller of an API would be told in the words of a command line."""
    if error.status == 404:
        raise AddressError(_unknown(address, group_id)) from None
    if error.status in (401, 403):
        raise AddressError(
            f"--groups {address} does not let this caller read the group {group_id!r}; "
            f"{how_to_set(TOKEN)}"
        ) from None
    raise AddressError(f"--group {group_id}: {error.message}") from None


def _unknown(address: str, group_id: str) -> str:
    return f"--group {group_id}: there is no such group in {address}"
