"""What Prometheus is told of the server. No label holds an id."""

from __future__ import annotations

from typing import Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

_SECONDS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20)


class Metrics:
    """The metrics of one server, in a registry of its own."""

    content_type = CONTENT_TYPE_LATEST

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "group_scores_api_requests",
            "Requests that were answered",
            ("route", "status"),
            registry=self._registry,
        )
        self._seconds = Histogram(
            "group_scores_api_request_seconds",
            "How long an answer took",
            ("route",),
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._reads = Histogram(
            "group_scores_api_read_seconds",
            "How long a read of the store or of the groups took",
            ("of",),
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._cache = Counter(
            "group_scores_api_cache",
            "Look-ups in a shared cache: hit, miss, or away where it does not answer",
            ("result",),
            registry=self._registry,
        )
        self.in_flight = Gauge(
            "group_scores_api_in_flight", "Requests at work now", registry=self._registry
        )

    def answered(self, route: str, status: int, seconds: float) -> None:
        """Count an answer."""
        self._requests.labels(route, status).inc()
        self._seconds.labels(route).observe(seconds)

    def read(self, of: str, seconds: float) -> None:
        """Count a read of `store` or `groups`."""
        self._reads.labels(of).observe(seconds)

    def cached(self, result: Literal["hit", "miss", "away"]) -> None:
        """Count a look-up in a shared cache."""
        self._cache.labels(result).inc()

    def text(self) -> bytes:
        """Return all of them as Prometheus reads them."""
        return generate_latest(self._registry)
