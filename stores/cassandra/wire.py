"""Three ways in which values travel differently from the driver's own."""

from __future__ import annotations

from typing import Any

from cassandra.cqltypes import BytesType, DateType, ListType, LongType, MapType
from cassandra.protocol import ProtocolHandler, ResultMessage
from cassandra.query import BoundStatement, PreparedStatement


class Bound(BoundStatement):  # type: ignore[misc]  # the driver has no types
    """A statement with its values encoded already (see `codec`).

    `partition` is the key of the partition that it is about, by which the driver finds its
    replicas; a statement about several is about partitions that share one.
    """

    def __init__(self, prepared: PreparedStatement, values: list[bytes], partition: bytes) -> None:
        # Without pages the nodes read the partitions of one statement at once, not in turn.
        super().__init__(prepared, fetch_size=None)
        self.values = values
        self.raw_values = "encoded"  # what the driver prints: no answers, no names
        self.partition = partition

    @property
    def routing_key(self) -> bytes:
        """What the partitioner hashes."""
        return self.partition


_PLAIN_RESULT = ProtocolHandler.message_types_by_opcode[ResultMessage.opcode]


class _Result(_PLAIN_RESULT):  # type: ignore[misc,valid-type]
    type_codes = {  # noqa: RUF012 - the driver's attribute
        code: LongType if cql_type is DateType else cql_type
        for code, cql_type in _PLAIN_RESULT.type_codes.items()
    }


class IntegerTimes(ProtocolHandler):  # type: ignore[misc]
    """Reads `timestamp` as epoch ms, at any depth of a type.

    Other jobs write these tables too, and a timestamp can be one that no datetime of Python
    holds; the driver would refuse the whole result for it.
    """

    message_types_by_opcode = {  # noqa: RUF012
        **ProtocolHandler.message_types_by_opcode,
        ResultMessage.opcode: _Result,
    }


class _RawResult(_Result):
    @classmethod
    def read_type(cls, f: Any, user_type_map: Any) -> Any:
        cql_type = super().read_type(f, user_type_map)
        return BytesType if issubclass(cql_type, MapType | ListType) else cql_type


class RawCollections(IntegerTimes):
    """Reads maps and lists as the bytes that the node sent."""

    message_types_by_opcode = {  # noqa: RUF012
        **IntegerTimes.message_types_by_opcode,
        ResultMessage.opcode: _RawResult,
    }
