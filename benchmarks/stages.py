"""Clocks around the functions that do the work, to say where the time goes.

They cost a microsecond or two a call: what is measured with them is how the time is divided, and
never a speed.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from functools import wraps
from typing import Any

import cassandra.connection
import psutil

from benchmarks.figures import Stage
from group_scores.stores.cassandra import CassandraStore, scan_attempts, table_reader
from group_scores.stores.sqlite import SqliteStore
from group_scores.transforms import (
    combine_attempts,
    dead_letter,
    fetch_best_score,
    merge_agg,
    parse_event,
    score_attempt,
    write_agg,
    write_attempt,
)
from group_scores.transforms.kafka.reader import KafkaReader

_CLOCKED: tuple[tuple[Any, str, str], ...] = (
    (KafkaReader, "poll", "read: poll"),
    (table_reader._Cursor, "fetch", "scan: pages"),
    (scan_attempts, "_add", "scan: rows to learners"),
    (combine_attempts, "combine_attempts", "best scores"),
    (parse_event, "parse_record", "parse"),
    (score_attempt, "score_event", "score"),
    (write_attempt, "write_attempts", "write attempts"),
    (fetch_best_score, "fetch_best_scores", "fetch best scores"),
    (merge_agg, "merge_agg", "merge"),
    (write_agg, "write_aggregates", "write aggregates"),
    (write_agg, "write_changed", "compare and write aggregates"),
    (dead_letter, "write_dead_letters", "dead letters"),
    *(
        (store, method, f"store: {method.replace('_', ' ')}")
        for store in (CassandraStore, SqliteStore)
        for method in ("read_attempts", "write_attempts", "write_aggregates", "hold")
    ),
)
_CLIENT_THREADS = {"event_loop": "driver's thread", "kafka": "Kafka client's threads"}


class StageClocks:
    """Measures each stage by itself: what a stage calls of the others is not its own time."""

    def __init__(self) -> None:
        self.requests: Counter[str] = Counter()
        self._calls: Counter[str] = Counter()
        self._cpu_s: Counter[str] = Counter()
        self._wall_s: Counter[str] = Counter()
        self._threads_s: Counter[str] = Counter()
        self._inside = threading.local()
        self._cpu_at_start = 0.0
        self._cpu_at_end = 0.0

    def install(self) -> None:
        """Put a clock around each function, for the rest of this process."""
        for owner, name, label in _CLOCKED:
            setattr(owner, name, self._clocked(getattr(owner, name), label))
        send = cassandra.connection.Connection.send_msg

        def counted(connection: Any, *args: Any, **kwargs: Any) -> Any:
            self.requests["cassandra"] += 1
            return send(connection, *args, **kwargs)

        cassandra.connection.Connection.send_msg = counted

    def start(self) -> None:
        """Begin: what was counted so far belongs to the start-up."""
        for counter in (self.requests, self._calls, self._cpu_s, self._wall_s):
            counter.clear()
        self._threads_s = _cpu_of_client_threads()
        self._cpu_at_start = time.process_time()

    def stop(self) -> None:
        """End, before the clients and with them their threads are closed."""
        self._cpu_at_end = time.process_time()
        self._threads_s = _cpu_of_client_threads() - self._threads_s

    def stages(self, rest: str) -> list[Stage]:
        """Return the stages, the clients' own threads, and as `rest` what is in none of them."""
        found = [
            Stage(name, self._calls[name], self._cpu_s[name], self._wall_s[name])
            for name in dict.fromkeys(label for _, _, label in _CLOCKED)
            if self._calls[name]
        ]
        found += [Stage(name, 0, cpu_s, 0.0) for name, cpu_s in self._threads_s.items()]
        known_s = sum(stage.cpu_s for stage in found)
        return [*found, Stage(rest, 0, self._cpu_at_end - self._cpu_at_start - known_s, 0.0)]

    def _clocked(self, function: Callable[..., Any], label: str) -> Callable[..., Any]:
        @wraps(function)
        def clocked(*args: Any, **kwargs: Any) -> Any:
            outer = getattr(self._inside, "of", None)
            inner = self._inside.of = [0.0, 0.0]
            wall_s, cpu_s = time.perf_counter(), time.thread_time()
            try:
                return function(*args, **kwargs)
            finally:
                cpu_s, wall_s = time.thread_time() - cpu_s, time.perf_counter() - wall_s
                self._calls[label] += 1
                self._cpu_s[label] += cpu_s - inner[0]
                self._wall_s[label] += wall_s - inner[1]
                self._inside.of = outer
                if outer is not None:
                    outer[0] += cpu_s
                    outer[1] += wall_s

        return clocked


def _cpu_of_client_threads() -> Counter[str]:
    names = {thread.native_id: thread.name for thread in threading.enumerate()}
    used: Counter[str] = Counter()
    for thread in psutil.Process().threads():
        for part, label in _CLIENT_THREADS.items():
            if part in names.get(thread.id, ""):
                used[label] += thread.user_time + thread.system_time
    return used
