"""Where an event came from, carried beside it until it can no longer be refused."""

from __future__ import annotations

import msgspec


class SourceRecord(msgspec.Struct, frozen=True, gc=False):
    """One message as it came in: its bytes and its position in the source.

    `topic` is a Kafka topic or the path of a file; `partition` is None for a file; `offset` is
    the record's offset in its partition, or the byte at which its line starts in the file.
    """

    value: bytes
    topic: str
    partition: int | None
    offset: int
