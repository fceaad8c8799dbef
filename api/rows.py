"""The rows of a group's members: one round of reads, or from a moment ago."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Sequence

from group_scores.api.threads import Threads
from group_scores.stores import ActivityRow, Store, StoreRefusedError, StoreTransientError

Rows = list[list[ActivityRow]]
_Key = tuple[str, str, tuple[str, ...]]
_MOST_MEMBERS = 200_000


class GroupRows:
    """Reads the store, and keeps what it read for `cache_s` seconds.

    What is kept is kept by the learners themselves: who may see them, and who they are, is asked
    for each request anew, so that nobody is shown what was read for somebody else.
    """

    def __init__(
        self,
        store: Store,
        threads: Threads,
        cache_s: float = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._threads = threads
        self._cache_s = cache_s
        self._clock = clock
        self._kept: OrderedDict[_Key, tuple[float, Rows]] = OrderedDict()
        self._members = 0

    async def of(self, activity_type: str, activity_id: str, user_ids: Sequence[str]) -> Rows:
        """Return the rows of each of the learners. Raises ApiError (503)."""
        if not user_ids:
            return []
        key = (activity_type, activity_id, tuple(user_ids))
        kept = self._kept.get(key)
        if kept and self._clock() - kept[0] < self._cache_s:
            return kept[1]
        rows = await self._threads.run(
            "STORE", self._read, activity_type, activity_id, user_ids, False
        )
        if self._cache_s:
            self._keep(key, rows)
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

    def _keep(self, key: _Key, rows: Rows) -> None:
        before = self._kept.pop(key, None)
        self._members += len(key[2]) if before is None else 0
        self._kept[key] = (self._clock(), rows)
        while self._members > _MOST_MEMBERS:
            oldest, _ = self._kept.popitem(last=False)
            self._members -= len(oldest[2])
