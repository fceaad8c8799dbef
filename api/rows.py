"""The rows of a group's members: one round of reads, or from a moment ago."""

from __future__ import annotations

from collections.abc import Sequence

from group_scores.api.row_cache import RowCache, Rows
from group_scores.api.threads import Threads
from group_scores.stores import ActivityRow, Store, StoreRefusedError, StoreTransientError


class GroupRows:
    """Reads the store, unless the cache has what was read a moment ago."""

    def __init__(self, store: Store, threads: Threads, cache: RowCache | None = None) -> None:
        self._store = store
        self._threads = threads
        self._cache = cache

    async def of(self, activity_type: str, activity_id: str, user_ids: Sequence[str]) -> Rows:
        """Return the rows of each of the learners. Raises ApiError (503)."""
        if not user_ids:
            return []
        key = (activity_type, activity_id, tuple(user_ids))
        kept = await self._cache.get(key) if self._cache else None
        if kept is not None:
            return kept
        rows = await self._threads.run(
            "STORE", self._read, activity_type, activity_id, user_ids, False
        )
        if self._cache:
            await self._cache.put(key, rows)
        return rows

    @property
    def has_details(self) -> bool:
        """Whether the store keeps a learner's single attempts."""
        return self._store.wants_details

    async def with_details(
        self, activity_type: str, activity_id: str, user_id: str
    ) -> list[ActivityRow]:
        """Return the rows of a learner with the single attempts. Raises ApiError (503)."""
        (rows,) = await self._threads.run(
            "STORE", self._read, activity_type, activity_id, [user_id], True
        )
        return rows

    async def check(self) -> None:
        """Raise ApiError where the store cannot be read now."""
        await self._threads.run("STORE", self._read, "Course", "-", ["-"], False)

    def _read(
        self, activity_type: str, activity_id: str, user_ids: Sequence[str], details: bool
    ) -> Rows:
        rows: Rows = []
        for found in self._store.read_activity(
            activity_type, activity_id, user_ids, details=details
        ):
            if isinstance(found, StoreTransientError):
                raise found
            # No row can have a key that the store refuses.
            rows.append([] if isinstance(found, StoreRefusedError) else found)
        return rows
