"""Calls that wait for a server, in threads of their own and within a time limit."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Literal, TypeVar

from group_scores.api.errors import unavailable
from group_scores.api.metrics import Metrics
from group_scores.stores import GroupScoresError

T = TypeVar("T")
_log = logging.getLogger(__name__)


class Threads:
    """Runs at most `number` calls at once; whoever waits longer than `limit_s` gets a 503.

    A call that is given up goes on in its thread until the driver's own time limit: so many at
    most, and the others are answered in time.
    """

    def __init__(self, number: int, limit_s: float, metrics: Metrics) -> None:
        self._pool = ThreadPoolExecutor(number, thread_name_prefix="reads")
        self._limit_s = limit_s
        self._metrics = metrics

    async def run(self, what: Literal["STORE", "GROUPS"], call: Callable[..., T], *args: Any) -> T:
        """Return what the call returns; raises ApiError (503) where it fails for now."""
        begun_s = time.perf_counter()
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._limit_s):
                return await loop.run_in_executor(self._pool, partial(call, *args))
        except TimeoutError:
            _log.warning("a read (%s) took longer than %g s", what.lower(), self._limit_s)
            raise unavailable(what) from None
        except GroupScoresError as error:
            _log.warning("a read (%s) failed: %s", what.lower(), error)
            raise unavailable(what) from None
        finally:
            self._metrics.read(what.lower(), time.perf_counter() - begun_s)

    def close(self) -> None:
        """Wait for no call that has not begun."""
        self._pool.shutdown(wait=False, cancel_futures=True)
