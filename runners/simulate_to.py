"""Where simulated events go: a file, standard output or a topic, at a rate."""

from __future__ import annotations

import gzip
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, cast

from group_scores.runners.command import OutputClosed
from group_scores.stores import AddressError, GroupScoresError

Send = Callable[[bytes, bytes], None]

_CHECK_S = 12.0  # of the 15 s in which a start has to say what is wrong
_FLUSH_EVERY_S = 1.0  # at a rate: how long an event may take to be on its way for good


@contextmanager
def open_destination(address: str, rate: float | None) -> Iterator[Send]:
    """Yield a function that sends one (key, event); everything is sent when the block ends.

    Raises AddressError or ServiceUnavailableError.
    """
    if address.startswith("kafka:"):
        with _topic(address, rate) as send:
            yield send
    else:
        with _file(address, rate) as send:
            yield send


@contextmanager
def _topic(address: str, rate: float | None) -> Iterator[Send]:
    from group_scores.transforms.kafka.address import KafkaAddress
    from group_scores.transforms.kafka.check import check_topic
    from group_scores.transforms.kafka.writer import KafkaWriter

    target = KafkaAddress.parse(address, role="sink")
    check_topic(target, _CHECK_S)
    writer = KafkaWriter(target)
    pace = _pace(rate)
    flushed = time.monotonic()

    def send(key: bytes, event: bytes) -> None:
        nonlocal flushed
        pace()
        writer.send(event, key)
        if rate and time.monotonic() - flushed > _FLUSH_EVERY_S:
            writer.flush()
            flushed = time.monotonic()

    yield send
    writer.flush()


@contextmanager
def _file(address: str, rate: float | None) -> Iterator[Send]:
    pace = _pace(rate)
    try:
        with _open(address) as file:

            def send(_: bytes, event: bytes) -> None:
                pace()
                # In a file one event is one line: JSON means the same without its line feeds.
                file.write(event.replace(b"\n", b" ") + b"\n")
                if rate:
                    file.flush()

            yield send
            file.flush()
    except BrokenPipeError:
        raise OutputClosed from None
    except OSError as error:
        place = "standard output" if address == "-" else address
        # What cannot even be opened is a wrong address; a disk that is full is not.
        kind = AddressError if error.filename else GroupScoresError
        raise kind(
            f"{place} cannot be written: {error.strerror}; mend that, or name another place"
        ) from None


@contextmanager
def _open(address: str) -> Iterator[IO[bytes]]:
    if address == "-":
        if sys.stdout is None:
            raise AddressError("standard output is closed; name a file or kafka://HOST:PORT/TOPIC")
        yield sys.stdout.buffer
        return
    if "://" in address:
        raise AddressError(
            f"{address!r} is no place for events; name a file, '-' or kafka://HOST:PORT/TOPIC"
        )
    with open(address, "wb") as raw:
        if not address.endswith(".gz"):
            yield raw
            return
        # A name or a time in the gzip header would make two equal runs differ.
        with gzip.GzipFile("", "wb", compresslevel=6, fileobj=raw, mtime=0) as packed:
            yield cast(IO[bytes], packed)


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
