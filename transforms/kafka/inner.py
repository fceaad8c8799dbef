"""What kafka-python knows but has no public name for, kept in one place.

Each function here reaches into the client; an upgrade of kafka-python is checked against the
tests of these.
"""

from __future__ import annotations

import logging
from collections import UserDict
from collections.abc import Callable
from typing import Any, NamedTuple

import kafka.errors as kafka_errors
from kafka.protocol.consumer import FetchRequest

log = logging.getLogger(__name__)

_READ_COMMITTED = 1
_NO_SESSION = -1
_ENOUGH_BYTES = 1  # the broker sends the first batch whole, however small the limit


class Look(NamedTuple):
    """What a fetch at one offset found; both ends are one past the last offset."""

    has_records: bool
    readable_end: int  # behind it transactions are still open
    log_end: int


def forbid_topic_creation(client: Any) -> None:
    """Make `allow_auto_create_topics=False` true.

    kafka-python 3.0 takes that option and does not hand it on to where metadata is asked for, so
    that looking for a misspelt topic would create it on a broker with the default settings.
    """
    client.cluster.config["allow_auto_create_topics"] = False


class _Settings(UserDict[str, Any]):
    """The settings of connections to come, with the password as it is then."""

    def __init__(self, settings: dict[str, Any], password: Callable[[], str]) -> None:
        super().__init__(settings)
        self._password = password

    def __getitem__(self, key: str) -> Any:
        return self._password() if key == "sasl_plain_password" else super().__getitem__(key)


def renew_password(client: Any, password: Callable[[], str]) -> None:
    """Ask for the password at each connection that the client makes from now on.

    kafka-python would log in for ever with the one that it was made with.
    """
    client._manager.config = _Settings(client._manager.config, password)


def abandon(producer: Any) -> None:
    """Close a producer that may hold messages nobody waits for any more.

    `KafkaProducer.close` with a time limit raises at its end, and leaves the threads running.
    """
    producer._sender.force_close()
    producer.close(timeout=1)


def partitions_of(consumer: Any, topic: str, timeout_s: float) -> list[int]:
    """Return the topic's partitions, ascending; none where the topic does not exist.

    `KafkaConsumer.partitions_for_topic` asks for all topics and has no time limit.
    """
    cluster = consumer._manager.cluster
    cluster.add_topic(topic)
    try:
        _refresh(consumer, timeout_s)
    except kafka_errors.UnknownTopicOrPartitionError:
        return []
    return sorted(cluster.partitions_for_topic(topic) or ())


def topics_of(consumer: Any, timeout_s: float) -> list[str]:
    """Return the names of the topics that the user may see, Kafka's own left out."""
    cluster = consumer._manager.cluster
    cluster.need_all_topic_metadata = True
    try:
        _refresh(consumer, timeout_s)
        return sorted(cluster.topics())
    finally:
        cluster.need_all_topic_metadata = False


def brokers_of(consumer: Any) -> list[str]:
    """Return `HOST:PORT` of each broker, as the cluster advertises them to its clients."""
    return [f"{broker.host}:{broker.port}" for broker in consumer._manager.cluster.brokers()]


def position_of(consumer: Any, key: Any) -> int:
    """Return the offset that the consumer fetches next; `KafkaConsumer.position` may ask and raise.

    Markers and gaps move it without a record.
    """
    return int(consumer._subscription.assignment[key].position.offset)


def _refresh(consumer: Any, timeout_s: float) -> None:
    manager = consumer._manager
    if manager.cluster.metadata_refresh_in_progress:
        # An answer that is under way was asked for before the question at hand.
        manager.run(manager.wait_for, manager.cluster.request_update(), timeout_s * 1000)
    manager.run(manager.wait_for, manager.cluster.request_update(), timeout_s * 1000)


def look_at(consumer: Any, key: Any, offset: int) -> Look | None:
    """Fetch once at `offset` of the partition `key`, outside of the consumer's own reading.

    An answer without records while `readable_end` is greater proves that none lies between: the
    fetcher, that only knows "no records", would ask for the same offset for ever. None means
    that nothing can be said (no leader, no answer, another error than none).
    """
    partition = FetchRequest.FetchTopic.FetchPartition(
        partition=key.partition,
        current_leader_epoch=-1,
        fetch_offset=offset,
        last_fetched_epoch=-1,
        partition_max_bytes=_ENOUGH_BYTES,
    )
    request = FetchRequest(
        max_wait_ms=0,
        min_bytes=0,
        max_bytes=_ENOUGH_BYTES,
        isolation_level=_READ_COMMITTED,
        session_id=0,
        session_epoch=_NO_SESSION,
        topics=[(key.topic, [partition])],
        forgotten_topics_data=[],
        rack_id="",
        min_version=4,
        max_version=12,
    )
    try:
        manager = consumer._manager
        leader = manager.cluster.leader_for_partition(key)
        if leader is None or leader < 0:
            return None
        answer = manager.run(manager.send, request, leader).responses[0].partitions[0]
    except Exception as error:
        log.debug("a look at %s offset %d failed: %s", key, offset, error)
        return None
    if answer.error_code != 0:
        return None
    return Look(bool(answer.records), answer.last_stable_offset, answer.high_watermark)
