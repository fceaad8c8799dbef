"""The clock that orders aggregates: the cluster's own, carried by this process's monotonic clock.

A write of an aggregate is ordered by the time just before its attempts were read, across all
workers. So the clock is not the machine's wall clock, which steps: it is measured against the
coordinator's when the process starts and every RESYNC_S from then on, and in between it runs
with the monotonic clock.

The bound. Two workers agree to within the error of that measurement: half a round trip and the
coordinator's resolution of 1 ms, plus what the cluster's nodes differ among themselves. Inside
that error a worker that read *before* another one's attempt was written can still hold the
greater time; its aggregate then lacks that attempt until the learner's next event, or the next
re-aggregation, writes it again. A machine whose own wall clock is more than MAX_SKEW_US off is
not trusted at all and does not write: such a machine has lost its time service, and everything
else that it stamps would be wrong too.

A machine that sleeps (a virtual one that is moved or restored) loses time that the monotonic clock
does not count. Its wall clock shows that: where the two drift apart by more than DRIFT_US, the
cluster is asked again before any time is given out.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from group_scores.stores.errors import ClockSkewError

MAX_SKEW_US = 5_000_000
RESYNC_S = 30.0
DRIFT_US = 100_000
_PROBES = 5


def _wall_us() -> int:
    return time.time_ns() // 1000


def _monotonic_us() -> int:
    return time.monotonic_ns() // 1000


class ClusterClock:
    """Epoch µs by the cluster's clock, greater at each call.

    `read_cluster_us` asks the coordinator for its time; it may raise StoreTransientError.
    """

    def __init__(
        self,
        read_cluster_us: Callable[[], int],
        *,
        wall_us: Callable[[], int] = _wall_us,
        monotonic_us: Callable[[], int] = _monotonic_us,
        max_skew_us: int = MAX_SKEW_US,
    ) -> None:
        self._read_cluster_us = read_cluster_us
        self._wall_us = wall_us
        self._monotonic_us = monotonic_us
        self._max_skew_us = max_skew_us
        self._lock = threading.Lock()
        self._offset_us: int | None = None  # cluster time less monotonic time
        self._synced_us = 0  # monotonic
        self._wall_offset_us = 0  # wall time less monotonic time, when synced
        self._last_us = 0

    def now_us(self) -> int:
        """Return the cluster's time; raises ClockSkewError beyond the bound."""
        with self._lock:
            if self._offset_us is None or self._is_due():
                self._sync()
            assert self._offset_us is not None
            self._last_us = max(self._last_us + 1, self._monotonic_us() + self._offset_us)
            return self._last_us

    def _is_due(self) -> bool:
        monotonic_us = self._monotonic_us()
        drift_us = self._wall_us() - monotonic_us - self._wall_offset_us
        return monotonic_us - self._synced_us > RESYNC_S * 1_000_000 or abs(drift_us) > DRIFT_US

    def _sync(self) -> None:
        # The probe with the shortest round trip bounds the error best.
        _, offset_us, skew_us = min(self._probe() for _ in range(_PROBES))
        if abs(skew_us) > self._max_skew_us:
            self._offset_us = None  # measured again at the next call
            raise ClockSkewError(
                f"this machine's clock is {-skew_us / 1e6:+.1f} s off the cluster's, and "
                f"{self._max_skew_us / 1e6:g} s is the most that can be trusted; "
                "start its time service"
            )
        before = self._offset_us
        self._offset_us = offset_us
        self._synced_us = self._monotonic_us()
        self._wall_offset_us = self._wall_us() - self._synced_us
        if before is not None and abs(offset_us - before) > self._max_skew_us:
            # The times given out since the last measurement were wrong by that much: whatever is
            # under way with one of them must not be written.
            raise ClockSkewError(
                f"the cluster's clock moved by {(offset_us - before) / 1e6:+.1f} s against this "
                "machine's; what was read meanwhile is read again"
            )

    def _probe(self) -> tuple[int, int, int]:
        """Return (round trip, cluster less monotonic, cluster less wall), all in µs."""
        before = self._monotonic_us()
        cluster_us = self._read_cluster_us()
        after = self._monotonic_us()
        middle = (before + after) // 2
        # The wall clock is read last and set back to the middle of the round trip.
        wall_us = self._wall_us() - (after - middle)
        return after - before, cluster_us - middle, cluster_us - wall_us
