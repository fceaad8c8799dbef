"""What more than one module of these tests asks for, and takes long to make."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.integration.snapshot_tables import Tables, tables_on
from tests.servers.cassandra_pair import CassandraPair


@pytest.fixture(scope="session")
def two_nodes(cassandra_pair: CassandraPair) -> Iterator[Tables]:
    """The attempts on two nodes, in the formats of Cassandra 5, a node each."""
    with tables_on(cassandra_pair, {"oa", "da"}) as tables:
        yield tables
