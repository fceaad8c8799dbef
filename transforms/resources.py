"""Stores and connections of this process, shared by all stages and closed at its end.

DoFn instances come and go and are pooled; a session of the driver costs seconds and a dozen
connections. So they are kept by their settings, which is what travels in the pipeline.
"""

from __future__ import annotations

import atexit
import contextlib
import threading
from collections.abc import Callable, Hashable
from typing import Protocol, TypeVar

from group_scores.stores import Store, StoreConfig, open_store


class Closeable(Protocol):
    """Anything that holds a connection."""

    def close(self) -> None:
        """Release it."""


R = TypeVar("R", bound=Closeable)
K = TypeVar("K", bound=Hashable)
_lock = threading.RLock()
_open: dict[tuple[Callable[..., Closeable], Hashable], Closeable] = {}


def shared(open_it: Callable[[K], R], settings: K) -> R:
    """Return this process's resource for the settings, opened at the first call."""
    key = (open_it, settings)
    with _lock:
        if key not in _open:
            _open[key] = open_it(settings)
        return _open[key]  # type: ignore[return-value]


def shared_store(config: StoreConfig) -> Store:
    """Return this process's store for the settings."""
    return shared(open_store, config)


def close_shared() -> None:
    """Close everything that was opened; the next use opens it again."""
    with _lock:
        while _open:
            _, resource = _open.popitem()
            with contextlib.suppress(Exception):
                resource.close()


atexit.register(close_shared)
