"""Where messages of ours go beside the store: a file of JSON lines or a Kafka topic."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import io
import os
import stat
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from group_scores.stores.errors import AddressError, ServiceUnavailableError
from group_scores.transforms.kafka.address import KafkaAddress
from group_scores.transforms.resources import shared

_SEND_S = 10.0

Shorten = Callable[[int, int], bytes]
"""Given a message's index and a limit in bytes, return a shorter one in its place."""


class Sink(Protocol):
    """A place that takes messages."""

    def write(self, messages: Sequence[bytes], shorten: Shorten | None = None) -> None:
        """Write the messages; they are safe when this returns.

        Repeating a call that failed may write some of them twice. A message that the sink has no
        room for is replaced by what `shorten` makes of it. Raises ServiceUnavailableError.
        """

    def close(self) -> None:
        """Release the connection."""


class FileSink:
    """Append JSON lines to a file that several processes may share."""

    def __init__(self, path: str) -> None:
        self._path = path

    def write(self, messages: Sequence[bytes], shorten: Shorten | None = None) -> None:
        """See `Sink`: on the disk when this returns, because the source is committed next."""
        lines = b"".join(message + b"\n" for message in messages)
        try:
            with open(self._path, "ab+", buffering=0) as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                _append(file, lines)
        except OSError as error:
            raise ServiceUnavailableError(
                f"{self._path} cannot be written: {error.strerror}; mend that, and run again"
            ) from error

    def close(self) -> None:
        """See `Sink`."""


def _append(file: io.FileIO, lines: bytes) -> None:
    end = file.seek(0, os.SEEK_END)
    if end:
        # A process that was killed in the middle of a line must not spoil the next.
        file.seek(-1, os.SEEK_END)
        if file.read(1) != b"\n":
            lines = b"\n" + lines
    try:
        left = memoryview(lines)
        while left:
            left = left[file.write(left) :]
        os.fsync(file.fileno())
    except OSError:
        with contextlib.suppress(OSError):
            file.truncate(end)  # no half of a line, and no line that is written twice
        raise


def open_sink(address: str) -> Sink:
    """Return the sink of an address: a path that ends in `.jsonl`, or `kafka://…/TOPIC`."""
    if address.startswith("kafka:"):
        # Imported here: an embedded run should not pay for loading the client.
        from group_scores.transforms.kafka.sink import KafkaSink

        # Waiting for brokers that are away is the stage's, see `Retry`.
        return KafkaSink(KafkaAddress.parse(address, role="sink"), retry_s=_SEND_S)
    return FileSink(address)


def shared_sink(address: str) -> Sink:
    """Return this process's sink for the address."""
    return shared(open_sink, address)


def same_place(one: str, other: str) -> bool:
    """Tell whether two addresses of sinks are one file or one topic."""
    if one.startswith("kafka:") and other.startswith("kafka:"):
        a, b = (KafkaAddress.parse(text, role="sink") for text in (one, other))
        return a.topic == b.topic and not set(a.bootstrap).isdisjoint(b.bootstrap)
    if os.path.exists(one) and os.path.exists(other):
        return os.path.samefile(one, other)
    return os.path.abspath(one) == os.path.abspath(other)


def check_sink(address: str, timeout_s: float) -> None:
    """Raise AddressError or ServiceUnavailableError where nothing could be written there.

    Takes about `timeout_s` at most.
    """
    if address.startswith("kafka:"):
        from group_scores.transforms.kafka.check import check_topic

        check_topic(KafkaAddress.parse(address, role="sink"), timeout_s)
        return
    path = Path(address)
    if "://" in address or path.suffix != ".jsonl":
        raise AddressError(
            f"{address!r} is not a place for messages; name a file that ends in .jsonl, "
            "or kafka://HOST:PORT/TOPIC"
        )
    folder = path.absolute().parent
    if not os.path.isdir(folder):
        raise AddressError(f"{address}: the folder {folder} does not exist; make it first")
    try:
        _try_to_append(path)
    except OSError as error:
        raise AddressError(
            f"{address} cannot be written: {error.strerror}; name another file"
        ) from None


def _try_to_append(path: Path) -> None:
    """Raise OSError where nothing could be appended; leave no trace where it could."""
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        tempfile.TemporaryFile(dir=path.absolute().parent).close()
        return
    if stat.S_ISFIFO(mode):  # opening it would wait for a reader
        raise OSError(errno.ESPIPE, "it is a pipe, and not a file")
    path.open("ab").close()
