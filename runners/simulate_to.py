"""Where simulated events go: a file, standard output or a topic, at a rate."""

from __future__ import annotations

import gzip
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, cast

from group_scores.stores import AddressError

Send = Callable[[bytes, bytes], None]


@contextmanager
def open_destination(address: str, rate: float | None) -> Iterator[Send]:
    """Yield a function that sends one (key, event); everything is sent when the block ends.

    Raises AddressError or ServiceUnavailableError.
    """
    pace = _pace(rate)
    if address.startswith("kafka:"):
        from group_scores.transforms.kafka.address import KafkaAddress
        from group_scores.transforms.kafka.check import check_topic
        from group_scores.transforms.kafka.writer import KafkaWriter

        target = KafkaAddress.parse(address, role="sink")
        check_topic(target)
        writer = KafkaWriter(target)

        def produce(key: bytes, event: bytes) -> None:
            pace()
            writer.send(event, key)

        yield produce
        writer.flush()
        return
    with _file(address) as file:

        def send(_: bytes, event: bytes) -> None:
            pace()
            # One event a line: an invalid one that holds a line feed cannot be told apart.
            file.write(event.replace(b"\n", b" ") + b"\n")
            if rate:
                file.flush()

        yield send


@contextmanager
def _file(address: str) -> Iterator[IO[bytes]]:
    if address == "-":
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    if "://" in address:
        raise AddressError(f"{address!r} is no place for events; name a file or kafka://…/TOPIC")
    try:
        file = _open(address)
    except OSError as error:
        raise AddressError(f"{address} cannot be written: {error.strerror}") from None
    with file:
        yield file


def _open(path: str) -> IO[bytes]:
    if path.endswith(".gz"):
        # The time in a gzip header would make two equal runs differ.
        return cast(IO[bytes], gzip.GzipFile(path, "wb", mtime=0))
    return open(path, "wb")


def _pace(rate: float | None) -> Callable[[], None]:
    if not rate:
        return lambda: None
    start = time.monotonic()
    sent = 0

    def wait() -> None:
        nonlocal sent
        ahead = start + sent / rate - time.monotonic()
        if ahead > 0:
            time.sleep(ahead)
        sent += 1

    return wait
