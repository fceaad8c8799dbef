"""How much may travel together: what the node itself says, where it says it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from cassandra import DriverException
from cassandra.cluster import Session

_BATCH_KIB = "batch_size_warn_threshold_in_kb"
_BATCH_PARTITIONS = "unlogged_batch_across_partitions_warn_threshold"
_FRAME_MIB = "native_transport_max_frame_size_in_mb"
_READ_KEYS = (
    "partition_keys_in_select_warn_threshold",
    "in_select_cartesian_product_warn_threshold",
)
_NAMES = (_BATCH_KIB, _BATCH_PARTITIONS, _FRAME_MIB, *_READ_KEYS)
_MOST_BATCH_BYTES = 64 * 1024
_MOST_BATCH_PARTITIONS = 100


@dataclass(frozen=True)
class Limits:
    """From here on Cassandra warns of a batch over several partitions, or of a read, or hangs up.

    `batch_bytes` and `batch_partitions` are as Cassandra is delivered, `read_keys` a number from
    which on a read gains nothing from more. `statement_bytes` is what one message may have: of a
    larger one the node skips the rest, and sometimes, with it, what is sent next. None where the
    node does not tell.
    """

    batch_bytes: int = 5 * 1024
    batch_partitions: int = 10
    read_keys: int = 16
    statement_bytes: int | None = None


def read_limits(session: Session) -> Limits:
    """Return the limits of the node that answers; Cassandra tells them from version 4.0 on."""
    names = ", ".join(f"'{name}'" for name in _NAMES)
    query = f"SELECT name, value FROM system_views.settings WHERE name IN ({names})"
    try:
        rows = session.execute(query)
    except DriverException:
        return Limits()
    return limits_of(dict(rows))


def limits_of(settings: Mapping[str, str | None]) -> Limits:
    """Return the limits that these settings ask for; one that is absent or off is the default."""
    usual = Limits()
    kib = _number(settings.get(_BATCH_KIB))
    partitions = _number(settings.get(_BATCH_PARTITIONS))
    frame_mib = _number(settings.get(_FRAME_MIB))
    keys = [number for name in _READ_KEYS if (number := _number(settings.get(name)))]
    return Limits(
        min(kib * 1024, _MOST_BATCH_BYTES) if kib else usual.batch_bytes,
        min(partitions, _MOST_BATCH_PARTITIONS) if partitions else usual.batch_partitions,
        min([usual.read_keys, *keys]),
        frame_mib * 1024 * 1024 if frame_mib else None,
    )


def _number(value: str | None) -> int | None:
    """Return a positive number; other values switch a limit off."""
    return int(value) if value and value.isascii() and value.isdigit() and int(value) else None
