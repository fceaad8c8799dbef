"""Choose the backend by the address."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from group_scores.stores.address import did_you_mean
from group_scores.stores.errors import AddressError
from group_scores.stores.protocol import AggColumns, Store

if TYPE_CHECKING:
    from group_scores.stores.cassandra import CassandraAddress

SCHEMES = ("sqlite", "cassandra")


@dataclass(frozen=True)
class StoreConfig:
    """What it takes to open a store in any process: an address and what to write.

    `agg_details` None writes the list where the table has it.
    """

    address: str
    agg_columns: AggColumns = "auto"
    agg_details: bool | None = None

    def check(self) -> None:
        """Raise AddressError where the address cannot be one, without opening anything."""
        scheme, colon, rest = self.address.partition(":")
        if not colon or scheme not in SCHEMES:
            raise AddressError(
                f"{self.address!r} is not a store{did_you_mean(scheme, SCHEMES)} "
                "(sqlite:PATH or cassandra://HOST:PORT/KEYSPACE)"
            )
        if scheme == "sqlite":
            if not rest or rest.startswith("//") or rest == ":memory:":
                raise AddressError(
                    f"{self.address!r} names no file; write sqlite:PATH, such as sqlite:scores.db"
                )
        else:
            # Imported here: an embedded run should not pay for loading the driver.
            from group_scores.stores.cassandra import CassandraAddress

            if not rest.startswith("//"):
                raise AddressError(f"{self.address!r}: write cassandra://HOST:PORT/KEYSPACE")
            CassandraAddress.parse(self.address)

    @property
    def cluster(self) -> CassandraAddress | None:
        """The cluster whose tables can be read by several workers at once; None for a file."""
        if self.address.startswith("sqlite:"):
            return None
        from group_scores.stores.cassandra import CassandraAddress

        return CassandraAddress.parse(self.address)


def open_store(config: StoreConfig) -> Store:
    """Open the store; raises AddressError or ServiceUnavailableError with one line for a person."""
    config.check()
    if config.address.startswith("sqlite:"):
        from group_scores.stores.sqlite import SqliteStore

        return SqliteStore(
            config.address.removeprefix("sqlite:"),
            agg_columns=config.agg_columns,
            agg_details=config.agg_details,
        )
    from group_scores.stores.cassandra import CassandraAddress, CassandraStore

    return CassandraStore(
        CassandraAddress.parse(config.address),
        agg_columns=config.agg_columns,
        agg_details=config.agg_details,
    )
