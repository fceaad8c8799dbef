"""A plain writer to one topic. It knows no Beam; a bundle sends, then flushes."""

from __future__ import annotations

import logging
import threading
import time
from typing import Any, NamedTuple

import kafka.errors as kafka_errors

from group_scores.stores.errors import AddressError, ServiceUnavailableError
from group_scores.transforms.kafka.address import KafkaAddress
from group_scores.transforms.kafka.client import (
    close_quietly,
    explain,
    message_limit,
    open_producer,
    patiently,
)
from group_scores.transforms.kafka.errors import MessageTooLargeError
from group_scores.transforms.kafka.topic import RETRY_S
from group_scores.transforms.resources import shared

log = logging.getLogger(__name__)

_OVERHEAD = 128  # of a batch with one record, in bytes, without the key
# What a topic surely takes where its limit may not be seen (Kafka's default is 1 MB).
_SMALL = 16 << 10
_LARGEST_BATCH = 128 << 10
_MOST_PENDING = 10_000
_MOST_PENDING_BYTES = 32 << 20
_FIRST_PAUSE_S = 0.2
_LONGEST_PAUSE_S = 5.0
_DELIVERY_S = 30.0

_PRODUCER: dict[str, Any] = {
    "acks": "all",
    "allow_auto_create_topics": False,
    "enable_idempotence": True,
    "linger_ms": 5,
    "max_block_ms": 10_000,
    "max_request_size": 1 << 30,  # what is too large the broker says
    "delivery_timeout_ms": int(_DELIVERY_S * 1000),  # then we send again ourselves
}
# A message that is too large is a final error of an idempotent producer; this one goes on.
_COMPRESSING: dict[str, Any] = {"compression_type": "gzip", "enable_idempotence": False}


class _Sent(NamedTuple):
    value: bytes
    key: bytes | None
    future: Any  # None: it could not even be queued


class KafkaWriter:
    """Sends messages to one topic; what was sent is safe when `flush` returns.

    Any number of writers of one address share this process's producer. A writer itself is not for
    several threads at once. A message may be written twice when brokers fail, and is never lost
    without an error.
    """

    def __init__(self, address: KafkaAddress, *, retry_s: float = RETRY_S) -> None:
        self.address = address
        self._retry_s = retry_s
        self._pending: list[_Sent] = []
        self._pending_bytes = 0

    def send(self, value: bytes, key: bytes | None = None) -> None:
        """Queue a message; one that may be too large is written at once, compressed.

        Raises MessageTooLargeError when even that does not fit: nothing of it was written, and the
        messages before it are not affected. Raises ServiceUnavailableError as `flush` does.
        """
        if len(value) > self._producers.largest(key, self._retry_s):
            self._send_compressed(value, key)
            return
        self._queue(value, key)
        self._pending_bytes += len(value)
        if len(self._pending) >= _MOST_PENDING or self._pending_bytes >= _MOST_PENDING_BYTES:
            self.flush()

    def flush(self) -> None:
        """Wait until all that was sent is acknowledged by all replicas in sync.

        What brokers did not take is sent again for up to `retry_s`. Then, raises
        ServiceUnavailableError and forgets what was sent: the bundle has to be done again. Raises
        MessageTooLargeError for a topic whose limit nobody knew; all others are safe then.
        """
        deadline = time.monotonic() + self._retry_s
        pause_s = _FIRST_PAUSE_S
        while self._pending:
            failed, error = self._outcome(deadline)
            if isinstance(error, kafka_errors.MessageSizeTooLargeError):
                self._send_each_compressed(failed)
                return
            if not failed:
                return
            reason = explain(error, self.address) if error else "they are not acknowledged"
            if isinstance(reason, AddressError):
                raise reason
            if time.monotonic() + pause_s > deadline:
                raise ServiceUnavailableError(
                    f"{len(failed)} messages to {self.address} could not be written in "
                    f"{self._retry_s:.0f} s: {reason}"
                )
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
            for one in failed:
                self._queue(one.value, one.key)

    @property
    def _producers(self) -> _Producers:
        return shared(_Producers, self.address)

    def _queue(self, value: bytes, key: bytes | None) -> None:
        future = None
        try:
            producer = self._producers.get("plain", self._retry_s)
            future = producer.send(self.address.topic, value=value, key=key)
        except kafka_errors.KafkaError as error:
            log.debug("%s: %s", self.address, error)
        self._pending.append(_Sent(value, key, future))

    def _outcome(self, deadline: float) -> tuple[list[_Sent], Exception | None]:
        """Take what is pending, wait for it, and return what failed with one of the errors."""
        sent, self._pending, self._pending_bytes = self._pending, [], 0
        producers = self._producers
        error: Exception | None = None
        try:
            left_s = max(0.1, deadline - time.monotonic())
            # Longer than that is for ever: a batch that kafka-python has split may never end.
            producers.get("plain", left_s).flush(timeout=min(left_s, _DELIVERY_S + 5))
        except kafka_errors.KafkaError as trouble:
            error = trouble
        failed = [one for one in sent if one.future is None or not one.future.succeeded()]
        reasons = [one.future.exception for one in failed if one.future is not None]
        error = next((reason for reason in reasons if reason is not None), error)
        if failed:
            # Its sequence numbers are in doubt, and after some errors it fails for good.
            producers.discard("plain")
        return failed, error

    def _send_each_compressed(self, messages: list[_Sent]) -> None:
        # One message that is too large makes an idempotent producer of kafka-python fail all others
        # with the same error: which one it is shows when each is sent by itself.
        too_large: MessageTooLargeError | None = None
        for one in messages:
            try:
                self._send_compressed(one.value, one.key)
            except MessageTooLargeError as error:
                too_large = error
        if too_large is not None:
            raise too_large

    def _send_compressed(self, value: bytes, key: bytes | None) -> None:
        producers = self._producers

        def attempt() -> None:
            producer = producers.get("gzip", self._retry_s)
            try:
                future = producer.send(self.address.topic, value=value, key=key)
                future.get(timeout=_DELIVERY_S)
            except kafka_errors.MessageSizeTooLargeError:
                raise
            except kafka_errors.KafkaError as error:
                producers.discard("gzip")
                raise explain(error, self.address) from error

        try:
            patiently(attempt, retry_s=self._retry_s, what=str(self.address))
        except kafka_errors.MessageSizeTooLargeError:
            raise MessageTooLargeError(
                f"a message of {len(value)} bytes is over the limit (max.message.bytes) of topic "
                f"{self.address.topic!r}, compressed as well",
                limit=producers.next_try(len(value), key),
            ) from None


class _Producers:
    """This process's producers for one topic, for any thread: one as it is, one that compresses."""

    def __init__(self, address: KafkaAddress) -> None:
        self._address = address
        self._lock = threading.RLock()
        self._open: dict[str, Any] = {}
        self._limit: int | None = None

    def largest(self, key: bytes | None, retry_s: float) -> int:
        """Return how long a value may be, in bytes, to be sent as it is."""
        self.get("plain", retry_s)
        return max(0, (self._limit or _SMALL) - _OVERHEAD - len(key or b""))

    def next_try(self, refused: int, key: bytes | None) -> int:
        """Return how long a value may be after one of `refused` bytes was too large."""
        known = self._limit - _OVERHEAD - len(key or b"") if self._limit else refused
        return max(0, known if known < refused else refused // 2)

    def get(self, kind: str, retry_s: float) -> Any:
        """Return the producer, opened when there is none; waits for brokers that are away."""
        with self._lock:
            if kind not in self._open:
                self._open[kind] = patiently(
                    lambda: self._connect(kind), retry_s=retry_s, what=str(self._address)
                )
            return self._open[kind]

    def _connect(self, kind: str) -> Any:
        if self._limit is None:
            self._limit = message_limit(self._address)
        batch = min(_LARGEST_BATCH, (self._limit or _SMALL) // 2)
        settings = _PRODUCER | {"batch_size": batch}
        return open_producer(self._address, settings | _COMPRESSING if kind == "gzip" else settings)

    def discard(self, kind: str) -> None:
        """Drop a producer that has failed; what else it had to send fails and is sent again."""
        with self._lock:
            producer = self._open.pop(kind, None)
        if producer is not None:
            close_quietly(producer)

    def close(self) -> None:
        """Disconnect."""
        for kind in list(self._open):
            self.discard(kind)
