"""A Kafka topic as a `transforms.sinks.Sink`."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from group_scores.transforms.kafka.address import KafkaAddress
from group_scores.transforms.kafka.errors import MessageTooLargeError
from group_scores.transforms.kafka.topic import RETRY_S
from group_scores.transforms.kafka.writer import KafkaWriter

Shorten = Callable[[int, int], bytes]


class KafkaSink:
    """Writes messages to a topic; for any thread. See `transforms.sinks.Sink`."""

    def __init__(self, address: KafkaAddress, *, retry_s: float = RETRY_S) -> None:
        self._address = address
        self._retry_s = retry_s

    def write(self, messages: Sequence[bytes], shorten: Shorten | None = None) -> None:
        """Write the messages, acknowledged by all replicas in sync when this returns.

        Raises ServiceUnavailableError, and MessageTooLargeError where `shorten` is None or what it
        returns does not get shorter.
        """
        writer = KafkaWriter(self._address, retry_s=self._retry_s)
        try:
            for index, message in enumerate(messages):
                self._send(writer, index, message, shorten)
            writer.flush()
        except MessageTooLargeError:
            # The topic's limit is below the usual one and was not known. It is now, but not which
            # message it was: one after the other.
            for index, message in enumerate(messages):
                self._send(writer, index, message, shorten, at_once=True)

    def close(self) -> None:
        """The producer is the process's, and is closed with it."""

    def _send(
        self,
        writer: KafkaWriter,
        index: int,
        message: bytes,
        shorten: Shorten | None,
        at_once: bool = False,
    ) -> None:
        while True:
            try:
                writer.send(message)
                if at_once:
                    writer.flush()
                return
            except MessageTooLargeError as error:
                if shorten is None:
                    raise
                shorter = shorten(index, error.limit)
                if len(shorter) >= len(message):
                    raise
                message = shorter
