"""The members of groups, straight from the table that the group service keeps them in."""

from __future__ import annotations

from typing import Any

from group_scores.stores.cassandra.address import CassandraAddress
from group_scores.stores.cassandra.faults import fault, is_drivers, start_error
from group_scores.stores.cassandra.session import connect
from group_scores.stores.errors import AddressError, StoreRefusedError
from group_scores.stores.groups import GroupMember

MEMBERS = "group_member"
_GROUPS = "group"
_COLUMNS = ("groupid", "userid", "role", "status", "createdby")


class GroupTable:
    """Reads `group_member` of a keyspace; threads may share it.

    Raises as `connect` does when it is opened, and AddressError where the table is another.
    """

    def __init__(self, address: CassandraAddress) -> None:
        self._session = connect(address)
        try:
            keyspace = self._session.cluster.metadata.keyspaces[address.keyspace]
            _check(keyspace)
            name = f'"{address.keyspace}".'
            self._members = self._session.prepare(
                f"SELECT userid, role, status, createdby FROM {name}{MEMBERS} "
                "WHERE groupid = ? LIMIT ?"
            )
            # A group that nobody is in has no row among the members.
            self._group = (
                self._session.prepare(f'SELECT id FROM {name}"{_GROUPS}" WHERE id = ?')
                if _has_groups(keyspace)
                else None
            )
        except BaseException as error:
            self.close()
            if isinstance(error, Exception) and is_drivers(error):
                raise start_error(address, error) from None
            raise

    def members(self, group_id: str, most: int) -> list[GroupMember] | None:
        """Read at most so many members, whatever their status; None for a group not known.

        Raises StoreTransientError; AddressError where reading is not permitted.
        """
        try:
            rows = self._session.execute(self._members, (group_id, most)).all()
            if not rows and not self._knows(group_id):
                return None
        except Exception as error:
            found = fault(error)
            if isinstance(found, StoreRefusedError):
                return None  # no group can have such an id
            raise found from error
        return [GroupMember(*row) for row in rows]

    def _knows(self, group_id: str) -> bool:
        if self._group is None:
            return False
        return bool(self._session.execute(self._group, (group_id,)).all())

    def close(self) -> None:
        """Release the connections."""
        self._session.cluster.shutdown()


def _check(keyspace: Any) -> None:
    table = keyspace.tables.get(MEMBERS)
    if table is None:
        raise AddressError(
            f"keyspace {keyspace.name!r} has no table {MEMBERS!r}; name the keyspace that has it"
        )
    missing = [name for name in _COLUMNS if name not in table.columns]
    if missing:
        raise AddressError(f"table {keyspace.name}.{MEMBERS} has no column {missing[0]!r}")
    if [column.name for column in table.partition_key] != ["groupid"]:
        raise AddressError(f"the partition key of {keyspace.name}.{MEMBERS} must be groupid")


def _has_groups(keyspace: Any) -> bool:
    table = keyspace.tables.get(_GROUPS)
    return table is not None and [column.name for column in table.partition_key] == ["id"]
