"""Whether a topic can be read or written, found out before a run starts."""

from __future__ import annotations

import logging
import threading
import time

from kafka.errors import KafkaError

from group_scores.stores.address import did_you_mean
from group_scores.stores.errors import AddressError, GroupScoresError, ServiceUnavailableError
from group_scores.transforms.kafka.address import KafkaAddress
from group_scores.transforms.kafka.client import explain, hushed
from group_scores.transforms.kafka.inner import brokers_of, topics_of
from group_scores.transforms.kafka.topic import KafkaTopic, Range, resolve

CHECK_TIMEOUT_S = 15.0
_MARGIN_S = 1.0  # for what has no time limit of its own to come to its end


def check_topic(address: KafkaAddress, timeout_s: float = CHECK_TIMEOUT_S) -> dict[int, Range]:
    """Return by partition the (start, end) offsets of a read that begins now.

    For a sink: of what the topic holds. Takes no more than `timeout_s`, whatever is at the other
    end. Raises AddressError (the topic, the user, the password, TLS or the port is wrong) and
    ServiceUnavailableError (nothing answers), one line each with the remedy.
    """
    address.client_config()  # a missing password or file needs no network to be found
    deadline = time.monotonic() + timeout_s
    outcome: list[dict[int, Range] | BaseException] = []

    def work() -> None:
        try:
            outcome.append(_check(address, deadline - _MARGIN_S))
        except BaseException as error:
            outcome.append(error)

    # In a thread of its own because a name server that is silent cannot be interrupted.
    thread = threading.Thread(target=work, name=f"check {address.servers}", daemon=True)
    with hushed():
        thread.start()
        thread.join(timeout_s)
    if not outcome:
        raise ServiceUnavailableError(
            f"no answer about {address} in {timeout_s:.0f} s; check the address and the brokers"
        )
    if isinstance(outcome[0], BaseException):
        raise outcome[0]
    return outcome[0]


def _check(address: KafkaAddress, deadline: float) -> dict[int, Range]:
    left_s = deadline - time.monotonic()
    topic = KafkaTopic(address, retry_s=0.0, timeout_s=left_s)
    try:
        consumer = topic.consumer
        try:
            names = topics_of(consumer, max(1.0, deadline - time.monotonic()))
            if address.topic not in names:
                raise AddressError(
                    f"topic {address.topic!r} does not exist on {address.servers}"
                    f"{did_you_mean(address.topic, names)}; create it, or correct the address"
                )
            topic.timeout_s = max(1.0, deadline - time.monotonic())
            return resolve(topic, logging.DEBUG)[0]  # the run itself will say it
        except (KafkaError, ServiceUnavailableError) as error:
            raise _unreachable(address, brokers_of(consumer), error) from error
    finally:
        topic.close()


def _unreachable(address: KafkaAddress, brokers: list[str], error: Exception) -> GroupScoresError:
    """The brokers name themselves, often by a host that only they can reach."""
    explained = explain(error, address)
    elsewhere = sorted(set(brokers) - set(address.bootstrap))
    if not elsewhere or not isinstance(explained, ServiceUnavailableError):
        return explained
    return ServiceUnavailableError(
        f"{address.servers} answers, and the brokers it names ({', '.join(elsewhere)}) do not; "
        "check that these names can be reached from here (advertised.listeners)"
    )
