"""Choose the source by the address."""

from __future__ import annotations

import glob
import os
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from urllib.parse import urlencode

import apache_beam as beam

from group_scores.stores.address import did_you_mean
from group_scores.stores.errors import AddressError
from group_scores.stores.sstable.snapshot import (
    SnapshotAddress,
    describe,
    find,
    require_replicas,
    verify,
)
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
from group_scores.transforms.snapshot import ReadSnapshot

_SCHEMES = ("kafka", "cassandra", "snapshot")
_PACKED_OTHERWISE = (".bz2", ".lz4", ".snappy", ".xz", ".zip", ".zst")
_COUNTED_BYTES = 256 << 20  # lines of more than this are not counted: a start must be quick
_COUNTED_PACKED_BYTES = 32 << 20


class Source(Protocol):
    """Where events come from."""

    @property
    def dead_letter(self) -> str:
        """The address of the dead letter where the options name none."""

    def read(self, retry_s: float) -> beam.PTransform:
        """Return the transform that reads SourceRecords, waiting `retry_s` for servers."""

    def reads(self, sink: str) -> bool:
        """Tell whether messages that are written to the address `sink` would be read as events."""

    def check(self, timeout_s: float) -> int | None:
        """Return how many events a run will read, None where that is not known.

        Takes about `timeout_s` at most. Raises AddressError or ServiceUnavailableError where
        nothing can be read.
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

    def reads(self, sink: str) -> bool:
        """See `Source`."""
        return same_place(sink, kafka_sink_address(self.address, self.address.topic))

    def check(self, timeout_s: float) -> int | None:
        """See `Source`."""
        if self.address.until == "forever":
            raise AddressError(
                "until=forever comes with the Flink runner, which is not built yet; "
                "until=latest reads what the topic holds"
            )
        from group_scores.transforms.kafka.check import check_topic

        offsets = check_topic(self.address, timeout_s)
        return sum(end - start for start, end in offsets.values())


@dataclass(frozen=True)
class SnapshotSource:
    """Snapshots of the attempts table, from any number of nodes."""

    address: SnapshotAddress
    allow_partial: bool = False
    progress: Progress = Progress()

    @property
    def gives(self) -> str:
        """What a read gives: attempts, not events."""
        return "attempts"

    @property
    def dead_letter(self) -> str:
        """See `Source`."""
        return "dead-letter.jsonl"

    def read(self, retry_s: float) -> beam.PTransform:
        """Return the transform that reads AttemptsPages; no server is waited for."""
        return ReadSnapshot(self.address, self.progress)

    def reads(self, sink: str) -> bool:
        """See `Source`."""
        return False

    def check(self, timeout_s: float) -> int | None:
        """See `Source`: every file is opened and its digest compared; an estimate is not made.

        The time goes with the size of the files. Raises AddressError or GroupScoresError.
        """
        with tempfile.TemporaryDirectory(prefix="group-scores-check-") as copies:
            snapshot = find(self.address, Path(copies))
            verify(snapshot)
            facts = describe(snapshot)
        if not self.allow_partial:
            require_replicas(self.address, facts)
        return None


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
    if scheme == "snapshot":
        return SnapshotSource(SnapshotAddress.parse(text))
    if scheme == "cassandra":
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


def _is_quick(paths: list[str]) -> bool:
    status = {path: os.stat(path) for path in paths}
    packed = sum(one.st_size for path, one in status.items() if path.endswith(".gz"))
    plain = sum(one.st_size for one in status.values()) - packed
    return (
        all(stat.S_ISREG(one.st_mode) for one in status.values())  # a pipe can be read only once
        and packed <= _COUNTED_PACKED_BYTES
        and plain <= _COUNTED_BYTES
    )
