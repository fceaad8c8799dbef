"""Choose the source by the address."""

from __future__ import annotations

import glob
import gzip
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from urllib.parse import urlencode

import apache_beam as beam

from group_scores.stores.address import did_you_mean
from group_scores.stores.errors import AddressError
from group_scores.transforms.files import STDIN, ReadFromFiles
from group_scores.transforms.kafka.address import KafkaAddress

_SCHEMES = ("kafka", "cassandra", "snapshot")
_COUNTED_BYTES = 256 * 1024 * 1024


class Source(Protocol):
    """Where events come from."""

    @property
    def dead_letter(self) -> str:
        """The address of the dead letter where the options name none."""

    def read(self, retry_s: float) -> beam.PTransform:
        """Return the transform that reads SourceRecords, waiting `retry_s` for servers."""

    def check(self) -> int | None:
        """Return how many events a run will read, None where that is not known.

        Raises AddressError or ServiceUnavailableError where nothing can be read.
        """


@dataclass(frozen=True)
class FileSource:
    """Files of JSON lines by a path or a glob, or `-` for standard input."""

    pattern: str

    @property
    def dead_letter(self) -> str:
        """See `Source`."""
        return "dead-letter.jsonl"

    def read(self, retry_s: float) -> beam.PTransform:
        """See `Source`."""
        if self.pattern == STDIN:
            return ReadFromFiles(STDIN)
        return ReadFromFiles(os.path.abspath(self.pattern))  # Beam finds none by a relative glob

    def check(self) -> int | None:
        """See `Source`. Counts lines, unless the files are so large that this would take long."""
        if self.pattern == STDIN:
            return None
        paths = [path for path in sorted(glob.glob(self.pattern)) if os.path.isfile(path)]
        if not paths:
            near = did_you_mean(self.pattern, map(str, Path(self.pattern).parent.glob("*")))
            raise AddressError(f"no file {self.pattern!r}{near}; name a .jsonl or .jsonl.gz file")
        try:
            if sum(os.path.getsize(path) for path in paths) > _COUNTED_BYTES:
                for path in paths:
                    _open(path).close()
                return None
            return sum(_lines(path) for path in paths)
        except (OSError, EOFError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise AddressError(f"{self.pattern} cannot be read: {reason}") from None


@dataclass(frozen=True)
class KafkaSource:
    """A topic."""

    address: KafkaAddress

    @property
    def dead_letter(self) -> str:
        """See `Source`: the topic's own failed topic, on the same brokers."""
        return kafka_sink_address(self.address, f"{self.address.topic}.failed")

    def read(self, retry_s: float) -> beam.PTransform:
        """See `Source`."""
        from group_scores.transforms.kafka.read import ReadFromKafka

        return ReadFromKafka(self.address, retry_s=retry_s)

    def check(self) -> int | None:
        """See `Source`."""
        from group_scores.transforms.kafka.check import check_topic

        offsets = check_topic(self.address)
        return sum(end - start for start, end in offsets.values())


def kafka_sink_address(source: KafkaAddress, topic: str) -> str:
    """Return the address of another topic on the brokers of `source`, reached in the same way."""
    access = {
        name: value
        for name in ("security", "mechanism", "username", "ca", "cert", "key")
        if (value := getattr(source, name)) is not None
    }
    return f"kafka://{','.join(source.bootstrap)}/{topic}?{urlencode(access)}"


def parse_source(text: str) -> Source:
    """Return the source of an address; raises AddressError."""
    scheme, colon, _ = text.partition(":")
    if scheme == "kafka":
        return KafkaSource(KafkaAddress.parse(text, role="source"))
    if scheme in ("cassandra", "snapshot"):
        raise AddressError(
            f"{scheme}: as a source comes with batch re-aggregation, which is not built yet; "
            "read from kafka://… or a file"
        )
    if colon and "://" in text:
        raise AddressError(
            f"{text!r} is not a source{did_you_mean(scheme, _SCHEMES)} "
            "(PATH.jsonl, PATH.jsonl.gz, a glob, '-', or kafka://HOST:PORT/TOPIC)"
        )
    return FileSource(text)


def _open(path: str):  # type: ignore[no-untyped-def]
    return gzip.open(path) if path.endswith(".gz") else open(path, "rb")


def _lines(path: str) -> int:
    count, last = 0, b"\n"
    with _open(path) as file:
        while chunk := file.read(1 << 20):
            count += chunk.count(b"\n")
            last = chunk[-1:]
    return count + (last != b"\n")
