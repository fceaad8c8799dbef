"""Stores and connections of this process, shared by all stages and closed at its end.

DoFn instances come and go and are pooled; a session of the driver costs seconds and a dozen
connections. So they are kept by their settings, which is what travels in the pipeline.
"""

from __future__ import annotations

import atexit
import contextlib
import threading
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from group_scores.stores import Store, StoreConfig, open_store


class Closeable(Protocol):
    """Anything that holds a connection."""

    def close(self) -> None:
        """Release it."""


R = TypeVar("R", bound=Closeable)
K = TypeVar("K", bound=Hashable)


@dataclass
class _Place:
    """One resource's place; its lock is held while it is opened, and no other's."""

    lock: threading.RLock = field(default_factory=threading.RLock)
    resource: Closeable | None = None
    given_up: bool = False


_lock = threading.Lock()
_places: dict[tuple[Callable[..., Closeable], Hashable], _Place] = {}


def shared(open_it: Callable[[K], R], settings: K) -> R:
    """Return this process's resource for the settings, opened at the first call."""
    while True:
        with _lock:
            place = _places.setdefault((open_it, settings), _Place())
        with place.lock:
            if place.given_up:
                continue
            if place.resource is None:
                place.resource = open_it(settings)
            return place.resource  # type: ignore[return-value]


def shared_store(config: StoreConfig) -> Store:
    """Return this process's store for the settings."""
    return shared(open_store, config)


def close_shared() -> None:
    """Close everything that was opened; the next use opens it again."""
    while True:
        with _lock:
            if not _places:
                return
            _, place = _places.popitem()
        with place.lock:
            place.given_up = True
            if place.resource is not None:
                with contextlib.suppress(Exception):
                    place.resource.close()


atexit.register(close_shared)
