"""Connections through kafka-python, with its settings, its traps and its errors dealt with once."""

from __future__ import annotations

import functools
import importlib.util
import logging
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, TypeVar

import kafka.errors as kafka_errors
from kafka import KafkaConsumer, KafkaProducer
from kafka.admin import ConfigResource, KafkaAdminClient
from kafka.net.compat import KafkaNetClient

from group_scores.stores.errors import (
    AddressError,
    GroupScoresError,
    ServiceUnavailableError,
)
from group_scores.stores.secrets import Renewed
from group_scores.transforms.kafka.address import PASSWORD_VARIABLE, KafkaAddress
from group_scores.transforms.kafka.inner import abandon, forbid_topic_creation, renew_password
from group_scores.transforms.kafka.probe import probe

log = logging.getLogger(__name__)
T = TypeVar("T")

OPEN_TIMEOUT_S = 10.0
REQUEST_TIMEOUT_S = 20.0

# One fetch is what a partition holds ahead of its consumer, compressed; a second is on its way.
_FETCH_BYTES = 1 << 20
_CONSUMER: dict[str, Any] = {
    "allow_auto_create_topics": False,
    "auto_offset_reset": "none",  # an offset that is gone is our decision, with a count and a line
    "enable_auto_commit": False,
    "fetch_max_bytes": 16 << 20,
    "max_partition_fetch_bytes": _FETCH_BYTES,
    "receive_buffer_bytes": _FETCH_BYTES,
}
_COMMON: dict[str, Any] = {
    "metrics_enabled": False,  # an eighth of the time of a read, and nobody looks
    "reconnect_backoff_max_ms": 2_000,  # back soon after the broker is; the default waits 30 s
    "request_timeout_ms": int(REQUEST_TIMEOUT_S * 1000),
    "retry_backoff_ms": 50,
}


def open_consumer(
    address: KafkaAddress,
    *,
    group: str | None = None,
    timeout_s: float = OPEN_TIMEOUT_S,
    committed_only: bool = True,
) -> Any:
    """Return a connected KafkaConsumer without a subscription.

    With `committed_only` it sees neither open nor aborted transactions. Raises AddressError where
    only a correction helps, ServiceUnavailableError where the same call may succeed later.
    """
    warn_without_crc32c()
    settings = {
        **_CONSUMER,
        "group_id": group,
        "isolation_level": "read_committed" if committed_only else "read_uncommitted",
    }
    return _open(KafkaConsumer, address, settings, timeout_s)


def open_producer(
    address: KafkaAddress, settings: dict[str, Any], timeout_s: float = OPEN_TIMEOUT_S
) -> Any:
    """Return a connected KafkaProducer; raises as `open_consumer` does."""
    return _open(KafkaProducer, address, settings, timeout_s)


def message_limit(address: KafkaAddress, timeout_s: float = OPEN_TIMEOUT_S) -> int | None:
    """Return the topic's `max.message.bytes`, None where the user may not see it.

    Raises as `open_consumer` does.
    """

    def connect(metrics_enabled: bool, **config: Any) -> Any:
        return KafkaAdminClient(**config)  # has no such option

    admin = _open(connect, address, {}, timeout_s)
    try:
        asked = ConfigResource("TOPIC", address.topic, ["max.message.bytes"])
        found = admin.describe_configs([asked], config_filter="all")
        return int(found["topic"][address.topic]["max.message.bytes"]["value"])
    except (kafka_errors.KafkaError, KeyError, ValueError) as error:
        log.debug("max.message.bytes of %s: %s", address, error)
        return None
    finally:
        close_quietly(admin)


def _open(
    kind: Callable[..., Any], address: KafkaAddress, settings: dict[str, Any], timeout_s: float
) -> Any:
    made: list[Any] = []

    def client(**configs: Any) -> Any:
        # A worker that is busy elsewhere is no reason for a warning a second (GIL, not a fault).
        made.append(KafkaNetClient(**{**configs, "slow_task_threshold_secs": 0}))
        forbid_topic_creation(made[-1])
        if password := configs.get("sasl_plain_password"):
            renew_password(made[-1], Renewed(PASSWORD_VARIABLE, password).read)
        return made[-1]

    deadline = time.monotonic() + timeout_s
    # kafka-python takes any of the servers and gives it the whole time, a silent one as well, and
    # it repeats a refused login until the time is over.
    servers = random.sample(address.bootstrap, len(address.bootstrap))
    server = probe(replace(address, bootstrap=tuple(servers)), time.monotonic() + timeout_s / 2)
    config = {**_COMMON, **settings, **address.client_config(), "kafka_client": client}
    config["bootstrap_servers"] = [server]
    config["bootstrap_timeout_ms"] = max(1, int((deadline - time.monotonic()) * 1000))
    try:
        return kind(**config)
    except kafka_errors.KafkaError as error:
        # A constructor that raises leaves its IO thread and its sockets behind.
        for one in made:
            one.close()
        raise explain(error, address) from error


def explain(error: Exception, address: KafkaAddress) -> GroupScoresError:
    """Turn an error of kafka-python into one line of ours, by what has to happen next."""
    if isinstance(error, GroupScoresError):
        return error
    if isinstance(error, kafka_errors.AuthorizationError):
        what = {
            "TopicAuthorizationFailedError": f"topic {address.topic!r}",
            "GroupAuthorizationFailedError": f"group {address.group!r}",
        }.get(type(error).__name__, "what is asked of it")
        return AddressError(
            f"user {address.username or '(anonymous)'!r} has no right to {what} on "
            f"{address.servers}; grant it, or correct the address"
        )
    if isinstance(error, kafka_errors.CommitFailedError):
        return AddressError(
            f"group {address.group!r} has members that subscribe to topics, and takes no other "
            "commits; stop them, or write another group="
        )
    if isinstance(error, kafka_errors.KafkaTimeoutError | kafka_errors.KafkaConnectionError):
        return ServiceUnavailableError(
            f"no answer from Kafka at {address.servers} in time; "
            "check that it runs and that the address is right"
        )
    return ServiceUnavailableError(f"Kafka at {address.servers} failed: {error}")


def patiently(attempt: Callable[[], T], *, retry_s: float, what: str) -> T:
    """Call `attempt` until it succeeds, for at most `retry_s`, as long as the service is away."""
    started = time.monotonic()
    pause_s = 0.25
    while True:
        try:
            return attempt()
        except ServiceUnavailableError as error:
            waited_s = time.monotonic() - started
            if waited_s + pause_s > retry_s:
                raise
            if pause_s == 0.25:
                log.warning("%s: %s; trying again for up to %.0f s", what, error, retry_s)
        time.sleep(pause_s * random.uniform(0.8, 1.2))
        pause_s = min(pause_s * 2, 5.0)


def close_quietly(client: Any) -> None:
    """Close a consumer or producer that is of no use any more; whatever it says."""
    try:
        if isinstance(client, KafkaProducer):
            abandon(client)
        elif isinstance(client, KafkaAdminClient):
            client.close()
        else:
            client.close(autocommit=False, timeout_ms=1000)
    except Exception as error:
        log.debug("closing a Kafka client: %s", error)


@functools.cache
def warn_without_crc32c() -> None:
    """Say once that reading will be slow, where it will be."""
    if importlib.util.find_spec("crc32c") is None:
        log.warning(
            "the package crc32c is missing: every Kafka checksum is computed in pure Python, and "
            "reading takes about 40 times as long; pip install crc32c"
        )


_hush_lock = threading.Lock()
_hushes: list[int] = []


@contextmanager
def hushed() -> Iterator[None]:
    """Keep kafka-python's own lines out of a check that ends in one line of ours."""
    logger = logging.getLogger("kafka")
    with _hush_lock:
        _hushes.append(logger.level)
        logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        with _hush_lock:
            level = _hushes.pop()
            if not _hushes:  # of several checks at once the last one opens again
                logger.setLevel(level)
