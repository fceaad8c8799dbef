"""Reading the files of a `nodetool snapshot` with Cassandra's own classes, without a cluster."""
