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
import zstandard
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
_FORM = "group-scores:rows:2"
_LARGEST_BYTES = 256 << 20  # unpacked: a group of thousands has some tens of MB
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

    No id can be read off a key or a value. `store` is an identity, not an address: two stores may
    share a Redis, and one name may lead to production here and to staging there.
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
        self._away = False
        self._ask_again_s = 0.0
        self._told = False
        self._encode = msgspec.msgpack.Encoder().encode
        self._decode = msgspec.msgpack.Decoder(Rows).decode
        # The names of the metrics stand in every row: a twentieth is left, or a large group would
        # not be through in time.
        self._pack = zstandard.ZstdCompressor(level=1).compress
        self._unpack = zstandard.ZstdDecompressor().decompress

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
        if not self._may_be_asked():
            self._metrics.cached("away")
            return None
        digest = self._digest(key)
        try:
            data = await self._redis.get(_name(digest))
        except redis.RedisError as error:
            if not str(error).startswith("WRONGTYPE"):  # another program's; a write replaces it
                self._miss_it(error)
                self._metrics.cached("away")
                return None
            data = None
        self._away = False
        rows = self._rows(data, digest, len(key[2])) if isinstance(data, bytes) else None
        self._metrics.cached("miss" if rows is None else "hit")
        return rows

    def _rows(self, data: bytes, digest: bytes, learners: int) -> Rows | None:
        """Return the rows of a value; None where it is another program's, or another key's."""
        # Whatever mixes up values, a copy or an answer that came late: never a learner's for
        # another's.
        if not data.startswith(digest):
            return None
        try:
            plain = self._unpack(data[len(digest) :], max_output_size=_LARGEST_BYTES)
            rows = self._decode(plain)
        except (zstandard.ZstdError, msgspec.MsgspecError):
            return None
        return rows if len(rows) == learners else None

    async def put(self, key: Key, rows: Rows) -> None:
        """See `RowCache`."""
        if self._away:
            return
        digest = self._digest(key)
        value = digest + self._pack(self._encode(rows))
        try:
            await self._redis.set(_name(digest), value, px=self._ms)
        except redis.RedisError as error:
            self._miss_it(error)
        else:
            if self._told:
                self._told = False
                _log.warning("the cache %s answers again", self._address)

    async def close(self) -> None:
        """See `RowCache`."""
        await self._redis.aclose()

    def _digest(self, key: Key) -> bytes:
        return hashlib.sha256(self._encode((self._store, *key))).digest()

    def _may_be_asked(self) -> bool:
        """Tell so of one that is there, and now and then of one that is away: to one request."""
        if self._away:
            if self._clock() < self._ask_again_s:
                return False
            self._ask_again_s = self._clock() + _AWAY_S
        return True

    def _miss_it(self, error: redis.RedisError) -> None:
        self._away = True
        self._ask_again_s = self._clock() + _AWAY_S
        # One that answers and takes nothing, as it is full, is not told again each time.
        if not self._told:
            self._told = True
            said = explained(error, self._address, WHAT)
            _log.warning("%s; the store is read for every request meanwhile", said)


def _name(digest: bytes) -> str:
    return f"{_FORM}:{digest.hex()}"
