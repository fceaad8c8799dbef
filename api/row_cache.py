"""What was read of a group's rows a moment ago: in this process, or in a Redis of several servers.

What is kept is kept by the learners themselves: who may see them, and who they are, is asked for
each request anew, so that nobody is shown what was read for somebody else.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Protocol

import msgspec
import redis
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from group_scores.api.metrics import Metrics
from group_scores.stores import ActivityRow, AddressError
from group_scores.stores.redis_address import client_settings, explained

Rows = list[list[ActivityRow]]
Key = tuple[str, str, tuple[str, ...]]
"""The activity's type and id, and the learners in the order of their rows."""

WHAT = "cache"
_MOST_MEMBERS = 200_000
_TIMEOUT_S = 0.25  # a read of the store takes no longer
_AWAY_S = 5.0
_FORM = "group-scores:rows:1"
_log = logging.getLogger(__name__)


class RowCache(Protocol):
    """Keeps rows for some seconds."""

    async def get(self, key: Key) -> Rows | None:
        """Return what is kept, None for nothing; never raises."""

    async def put(self, key: Key, rows: Rows) -> None:
        """Keep rows; never raises."""

    async def close(self) -> None:
        """Disconnect."""


class OwnCache:
    """Keeps rows in this process, of so many learners at most."""

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._clock = clock
        self._kept: OrderedDict[Key, tuple[float, Rows]] = OrderedDict()
        self._members = 0

    async def get(self, key: Key) -> Rows | None:
        """See `RowCache`."""
        kept = self._kept.get(key)
        return kept[1] if kept and self._clock() - kept[0] < self._seconds else None

    async def put(self, key: Key, rows: Rows) -> None:
        """See `RowCache`."""
        before = self._kept.pop(key, None)
        self._members += len(key[2]) if before is None else 0
        self._kept[key] = (self._clock(), rows)
        while self._members > _MOST_MEMBERS:
            oldest, _ = self._kept.popitem(last=False)
            self._members -= len(oldest[2])

    async def close(self) -> None:
        """See `RowCache`."""


class SharedCache:
    """Keeps rows in a Redis, for all servers on one store; a Redis that is away is done without.

    No id can be read off a key. `store` is the store's address: two stores may share a Redis.
    """

    def __init__(
        self,
        address: str,
        store: str,
        seconds: float,
        metrics: Metrics,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._redis: Redis = Redis(
            **client_settings(address, WHAT, _TIMEOUT_S), retry=Retry(NoBackoff(), 0)
        )
        self._address = address
        self._store = store
        self._ms = max(1, round(seconds * 1000))
        self._metrics = metrics
        self._clock = clock
        self._away_until_s = 0.0
        self._away = False
        self._encode = msgspec.msgpack.Encoder().encode
        self._decode = msgspec.msgpack.Decoder(Rows).decode

    async def check(self) -> None:
        """Raise AddressError where it can never work: a wrong password, another server."""
        try:
            await self._redis.get(_FORM)
        except redis.RedisError as error:
            why = explained(error, self._address, WHAT)
            if isinstance(why, AddressError):
                raise why from None
            self._miss_it(error)

    async def get(self, key: Key) -> Rows | None:
        """See `RowCache`."""
        if self._clock() < self._away_until_s:
            self._metrics.cached("away")
            return None
        try:
            data = await self._redis.get(self._name(key))
        except redis.RedisError as error:
            self._miss_it(error)
            self._metrics.cached("away")
            return None
        self._find_it()
        try:
            rows = self._decode(data) if isinstance(data, bytes) else None
        except msgspec.MsgspecError:
            rows = None  # another program's, or another version's
        if rows is not None and len(rows) != len(key[2]):
            rows = None
        self._metrics.cached("miss" if rows is None else "hit")
        return rows

    async def put(self, key: Key, rows: Rows) -> None:
        """See `RowCache`."""
        if self._clock() < self._away_until_s:
            return
        try:
            await self._redis.set(self._name(key), self._encode(rows), px=self._ms)
        except redis.RedisError as error:
            self._miss_it(error)

    async def close(self) -> None:
        """See `RowCache`."""
        await self._redis.aclose()

    def _name(self, key: Key) -> str:
        of = self._encode((self._store, *key))
        return f"{_FORM}:{hashlib.sha256(of).hexdigest()}"

    def _miss_it(self, error: redis.RedisError) -> None:
        self._away_until_s = self._clock() + _AWAY_S
        if not self._away:
            self._away = True
            said = explained(error, self._address, WHAT)
            _log.warning("%s; the store is read for every request meanwhile", said)

    def _find_it(self) -> None:
        if self._away:
            self._away = False
            _log.warning("the cache %s answers again", self._address)
