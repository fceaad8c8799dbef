"""What a measurement is: a process's figures, medians over rounds, ratios of pairs."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec


class Stage(msgspec.Struct, frozen=True):
    """Seconds that were spent in one stage and in nothing that it calls of the other stages."""

    name: str
    calls: int
    cpu_s: float
    wall_s: float


class Measured(msgspec.Struct, frozen=True):
    """What one process measured of its work, the start-up apart.

    `cpu_s` is of all its threads; `servers_cpu_s` is what each server used meanwhile. `stages` and
    `requests` (messages to each server) are given by a run that was asked for them;
    `children_peak_mb` is what processes of its own held at once, where it has any.
    """

    events: int
    seconds: float
    startup_s: float
    cpu_s: float
    servers_cpu_s: dict[str, float]
    peak_mb: float
    stages: list[Stage] = []
    requests: dict[str, int] = {}
    children_peak_mb: float = 0.0

    @property
    def rate(self) -> float:
        """Events a second."""
        return self.events / self.seconds

    @property
    def cpu_ms(self) -> float:
        """CPU milliseconds an event, of the process itself."""
        return 1000 * self.cpu_s / self.events

    def server_cpu_ms(self, server: str) -> float:
        """CPU milliseconds an event, of a server."""
        return 1000 * self.servers_cpu_s.get(server, 0.0) / self.events


def median_of(measured: Iterable[Measured], what: Callable[[Measured], float]) -> float:
    """Return the median of one figure."""
    return statistics.median(map(what, measured))


def median_ratio(
    first: Sequence[Measured], second: Sequence[Measured], what: Callable[[Measured], float]
) -> float:
    """Return the median over the rounds of first / second, each of one round and so alike."""
    return statistics.median(
        what(one) / what(other) for one, other in zip(first, second, strict=True)
    )


def summary(rounds: Sequence[Measured]) -> dict[str, Any]:
    """Return the medians of rounds, as they are kept in the file of results."""
    servers = rounds[0].servers_cpu_s
    return {
        "rounds": len(rounds),
        "events": rounds[0].events,
        "events_a_second": round(median_of(rounds, lambda m: m.rate), 1),
        "events_a_second_of_each_round": [round(one.rate, 1) for one in rounds],
        "startup_s": round(median_of(rounds, lambda m: m.startup_s), 3),
        "cpu_ms_an_event": round(median_of(rounds, lambda m: m.cpu_ms), 4),
        "servers_cpu_ms_an_event": {
            name: round(median_of(rounds, lambda m, name=name: m.server_cpu_ms(name)), 4)
            for name in servers
        },
        "peak_mb": round(median_of(rounds, lambda m: m.peak_mb), 1),
    }
