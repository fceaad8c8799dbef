"""Choose the source by the address."""

from __future__ import annotations

import glob
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol
from urllib.parse import urlencode

import apache_beam as beam

from group_scores.stores import Selection, Store
from group_scores.stores.address import did_you_mean
from group_scores.stores.errors import AddressError
from group_scores.transforms.files import (
    STDIN,
    ReadFromFiles,
    count_lines,
    file_parts,
    matching_files,
)
from group_scores.transforms.kafka.address import KafkaAddress
from group_scores.transforms.progress import Progress
from group_scores.transforms.sinks import same_place

_SCHEMES = ("kafka", "cassandra", "snapshot")
_PACKED_OTHERWISE = (".bz2", ".lz4", ".snappy", ".xz", ".zip", ".zst")
_COUNTED_BYTES = 256 << 20  # lines of more than this are not counted: a start must be quick
_COUNTED_PACKED_BYTES = 32 << 20


Gives = Literal["events", "attempts"]


class Source(Protocol):
    """Where events come from, or all the attempts of a table or a snapshot."""

    @property
    def gives(self) -> Gives:
        """Which of the two: what `read` gives, SourceRecord or AttemptsPage."""

    @property
    def streams(self) -> bool:
        """Whether it says, when what was read is safe, that it need not be read again."""

    @property
    def endless(self) -> bool:
        """Whether it never comes to its end."""

    @property
    def taken_us(self) -> int | None:
        """The time as of which it gives all attempts, epoch µs; None for now."""

    @property
    def selection(self) -> Selection:
        """Which attempts it gives."""

    @property
    def rows_s(self) -> float | None:
        """How many rows a second a worker reads at most; None where nothing holds it back."""

    @property
    def dead_letter(self) -> str:
        """The address of the dead letter where the options name none."""

    def read(self, retry_s: float, progress: Progress) -> beam.PTransform:
        """Return the transform that reads, waiting `retry_s` for servers that are away.

        `progress` is for attempts; events are counted where they are parsed.
        """

    def reads(self, sink: str) -> bool:
        """Tell whether messages that are written to the address `sink` would be read as events."""

    def check(self, timeout_s: float) -> int | None:
        """Return how many events, or attempts, a run will read, None where that is not known.

        Takes about `timeout_s` at most. Raises AddressError or ServiceUnavailableError where
        nothing can be read.
        """

    def check_store(self, store: Store) -> None:
        """Raise AddressError where what it gives would be taken for newer than it is there."""


class Plain:
    """What most sources are: read to their end as fast as it goes, and told nothing afterwards."""

    @property
    def streams(self) -> bool:
        """See `Source`."""
        return False

    @property
    def endless(self) -> bool:
        """See `Source`."""
        return False

    @property
    def rows_s(self) -> float | None:
        """See `Source`."""
        return None


class _Events(Plain):
    """What the sources of events have in common."""

    @property
    def gives(self) -> Gives:
        """See `Source`."""
        return "events"

    @property
    def taken_us(self) -> int | None:
        """See `Source`."""
        return None

    @property
    def selection(self) -> Selection:
        """See `Source`."""
        return Selection()

    def check_store(self, store: Store) -> None:
        """See `Source`: each event has a time of its own."""


@dataclass(frozen=True)
class FileSource(_Events):
    """Files of JSON lines by a path or a glob, or `-` for standard input."""

    pattern: str

    @property
    def dead_letter(self) -> str:
        """See `Source`."""
        return "dead-letter.jsonl"

    def read(self, retry_s: float, progress: Progress) -> beam.PTransform:
        """See `Source`."""
        return ReadFromFiles(self.pattern)

    def reads(self, sink: str) -> bool:
        """See `Source`: also where the file is not there yet and the glob would find it later."""
        if self.pattern == STDIN or sink.startswith("kafka:"):
            return False
        path = os.path.abspath(sink)
        pattern = os.path.normpath(os.path.join(glob.escape(os.getcwd()), self.pattern))
        return Path(path).match(pattern) or any(
            same_place(path, one) for one in matching_files(self.pattern)
        )

    def check(self, timeout_s: float) -> int | None:
        """See `Source`. Counts lines, unless the files are so large that this would take long."""
        if self.pattern == STDIN:
            return None
        paths = matching_files(self.pattern)
        if not paths:
            raise self._not_found()
        for path in paths:
            if path.endswith(_PACKED_OTHERWISE):
                raise AddressError(
                    f"{path} is packed in a way that is not read here; unpack it, or pipe it "
                    "unpacked into --source -"
                )
            file_parts(path)
        return sum(map(count_lines, paths)) if _is_quick(paths) else None

    def _not_found(self) -> AddressError:
        if os.path.isdir(self.pattern):
            inside = os.path.join(self.pattern, "*.jsonl")
            return AddressError(f"{self.pattern} is a folder; name a file, or {inside}")
        folder, name = os.path.split(self.pattern)
        try:
            near = did_you_mean(name, os.listdir(folder or "."))
        except OSError:
            near = ""
        return AddressError(f"no file {self.pattern!r}: name a .jsonl or .jsonl.gz file{near}")


@dataclass(frozen=True)
class KafkaSource(_Events):
    """A topic. For `readers` and `drained_by_timers` of an endless read see `StreamFromKafka`."""

    address: KafkaAddress
    readers: tuple[bytes, ...] = (b"0",)
    drained_by_timers: bool = False

    @property
    def streams(self) -> bool:
        """See `Source`: its offsets are committed."""
        return True

    @property
    def endless(self) -> bool:
        """See `Source`."""
        return self.address.until == "forever"

    @property
    def dead_letter(self) -> str:
        """See `Source`: the topic's own failed topic, on the same brokers."""
        return kafka_sink_address(self.address, f"{self.address.topic}.failed")

    def read(self, retry_s: float, progress: Progress) -> beam.PTransform:
        """See `Source`."""
        if self.endless:
            from group_scores.transforms.kafka.stream import StreamFromKafka

            return StreamFromKafka(
                self.address,
                self.readers,
                retry_s=retry_s,
                drained_by_timers=self.drained_by_timers,
            )
        from group_scores.transforms.kafka.read import ReadFromKafka

        return ReadFromKafka(self.address, retry_s=retry_s)

    def reads(self, sink: str) -> bool:
        """See `Source`."""
        return same_place(sink, kafka_sink_address(self.address, self.address.topic))

    def check(self, timeout_s: float) -> int | None:
        """See `Source`."""
        from group_scores.transforms.kafka.check import check_topic

        offsets = check_topic(self.address, timeout_s)
        return None if self.endless else sum(end - start for start, end in offsets.values())


def kafka_sink_address(source: KafkaAddress, topic: str) -> str:
    """Return the address of another topic on the brokers of `source`, reached in the same way."""
    access = {
        name: value
        for name in ("security", "mechanism", "username", "ca", "cert", "key")
        if (value := getattr(source, name)) not in (None, "PLAINTEXT")
    }
    options = f"?{urlencode(access, safe='/')}" if access else ""
    return f"kafka://{source.servers}/{topic}{options}"


def parse_source(text: str) -> Source:
    """Return the source of an address; raises AddressError."""
    scheme, colon, _ = text.partition(":")
    if scheme == "kafka":
        return KafkaSource(KafkaAddress.parse(text, role="source"))
    if scheme == "cassandra":
        from group_scores.pipelines.batch_sources import CassandraSource

        return CassandraSource.parse(text)
    if scheme == "snapshot":
        from group_scores.pipelines.batch_sources import SnapshotSource

        return SnapshotSource.parse(text)
    if colon and "://" in text:
        raise AddressError(
            f"{text!r} is not a source{did_you_mean(scheme, _SCHEMES)} "
            "(PATH.jsonl, PATH.jsonl.gz, a glob, '-', kafka://HOST:PORT/TOPIC, "
            "cassandra://HOST:PORT/KEYSPACE or snapshot:DIR)"
        )
    return FileSource(text)


def _is_quick(paths: list[str]) -> bool:
    status = {path: os.stat(path) for path in paths}
    packed = sum(one.st_size for path, one in status.items() if path.endswith(".gz"))
    plain = sum(one.st_size for one in status.values()) - packed
    return (
        all(stat.S_ISREG(one.st_mode) for one in status.values())  # a pipe can be read only once
        and packed <= _COUNTED_PACKED_BYTES
        and plain <= _COUNTED_BYTES
    )
