"""Cassandra as a source and as a sink of any pipeline: Beam's Python SDK has neither.

What belongs here is wiring: which ranges there are, who reads them, how they are split, what is
counted. The statements, pages and rows are of `stores.cassandra`.
"""

from group_scores.transforms.cassandra.attempts import ReadAttempts
from group_scores.transforms.cassandra.read import ReadFromCassandra
from group_scores.transforms.cassandra.write import WriteToCassandra

__all__ = ["ReadAttempts", "ReadFromCassandra", "WriteToCassandra"]
