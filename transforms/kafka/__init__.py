"""Kafka as a source and as a sink, over kafka-python, without a Java expansion service.

What belongs here: how a topic is addressed, reached, read, committed and written. `reader` and
`writer` know no Beam and are usable alone; `read` is the thin Beam wrapper of a bounded read.
What a message means belongs to `scores`, where it goes to the other transforms.
"""
