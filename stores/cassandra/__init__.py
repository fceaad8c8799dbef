"""Cassandra as a store: its address, its session, its statements and its fast encoders.

All CQL of the project is in this package. `CassandraStore` is what the rest of the project uses.
"""

from group_scores.stores.cassandra.address import CassandraAddress, CassandraSourceAddress
from group_scores.stores.cassandra.groups import GroupTable
from group_scores.stores.cassandra.store import CassandraStore

__all__ = ["CassandraAddress", "CassandraSourceAddress", "CassandraStore", "GroupTable"]
