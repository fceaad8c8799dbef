"""The cluster's own time, as its coordinator tells it."""

from __future__ import annotations

from cassandra.cluster import Session

from group_scores.stores.cassandra.address import CassandraAddress
from group_scores.stores.cassandra.faults import is_drivers
from group_scores.stores.errors import StoreTransientError

_UUID_EPOCH_100NS = 0x01B21DD213814000  # 1582-10-15, from which version 1 UUIDs count


class ClusterTime:
    """Asks for the time; what `ClusterClock` is set by. Raises the driver's errors when made."""

    def __init__(self, session: Session, address: CassandraAddress) -> None:
        self._session = session
        self._address = address
        self._statement = session.prepare("SELECT now() FROM system.local")

    def now_us(self) -> int:
        """Return epoch µs to the ms; raises StoreTransientError."""
        try:
            (row,) = self._session.execute(self._statement)
        except Exception as error:
            if not is_drivers(error):
                raise
            raise StoreTransientError(f"{self._address}: {error}") from error
        return int((row[0].time - _UUID_EPOCH_100NS) // 10)
