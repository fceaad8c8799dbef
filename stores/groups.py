"""Who is in a group: what every source of groups gives."""

from __future__ import annotations

import msgspec

ACTIVE = "active"


class GroupMember(msgspec.Struct, frozen=True, rename="camel"):
    """One member, with the names that the group service's JSON has; null is unknown."""

    user_id: str
    role: str | None = None
    status: str | None = None
    created_by: str | None = None
    name: str | None = None

    @property
    def is_active(self) -> bool:
        """Whether the member has not left."""
        return self.status == ACTIVE
