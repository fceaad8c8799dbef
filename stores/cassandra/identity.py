"""Which cluster a session is on, whatever address it was reached by."""

from __future__ import annotations

from cassandra.cluster import Session


def identity(session: Session, keyspace: str) -> str:
    """Return one text for all addresses of a keyspace, and another for a copy of it.

    Made of what the nodes say of themselves. A restored cluster has nodes of its own; a copy of
    whole machines keeps their ids but not their addresses. Where a topology is just changing two
    readings may differ: whoever compares them is then told to name the time of a copy, and none is
    ever taken for the original.
    """
    metadata = session.cluster.metadata
    nodes = sorted(f"{host.host_id}@{host.broadcast_address}" for host in metadata.all_hosts())
    return f"{metadata.cluster_name}/{keyspace} on {', '.join(nodes)}"
