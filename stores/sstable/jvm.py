"""One process of the program that merges SSTables, and the frames it answers with."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, NamedTuple

import msgspec

from group_scores.stores import java
from group_scores.stores.errors import AddressError, GroupScoresError
from group_scores.stores.sstable import artifacts

Row = tuple[str, str, str, str, str, int | None, float | None, float | None]
"""User, course, batch, content, attempt, last_attempted_on in ms, score, greatest score."""


class FileFacts(NamedTuple):
    """What a data file tells of itself; `host` is the id of the node that wrote it, or empty."""

    path: str
    by_course: bool
    host: str
    rows: int
    first_token: int
    last_token: int


_ROWS = msgspec.msgpack.Decoder(list[Row])
_FACTS = msgspec.msgpack.Decoder(FileFacts)
_COUNT = msgspec.msgpack.Decoder(int)
_TEXT = msgspec.msgpack.Decoder(str)
_LOGBACK = "<configuration><root level='OFF'/></configuration>"


class SnapshotJvm:
    """A process that has the SSTables of `data_files` open; one request at a time.

    `dropped` as in `LocalSnapshot`. The process ends with this one, however that ends.
    """

    def __init__(self, data_files: Sequence[Path], dropped: Sequence[str] = ()) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="group-scores-jvm-"))
        try:
            words = command(self._folder, "SnapshotReader", *dropped, *map(str, data_files))
            self._errors = (self._folder / "stderr").open("w+b")
            self._process = subprocess.Popen(
                words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors
            )
        except BaseException:
            shutil.rmtree(self._folder, ignore_errors=True)
            raise

    def describe(self) -> list[FileFacts]:
        """Return what each file tells of itself.

        Raises AddressError where a file is not what it should be, GroupScoresError where the
        process fails otherwise.
        """
        return [_FACTS.decode(payload) for payload in self._answer("describe", b"D")]

    def read(self, start: int, end: int, now_s: int, gc_before_s: int) -> Iterator[list[Row]]:
        """Yield the live rows of the token range (start, end] in their order, some at a time.

        A deletion before `gc_before_s` is past its grace: the table's nodes do not tell of it.

        Equal tokens are the whole ring. Raises GroupScoresError also where the process ended
        before it said that all rows were out.
        """
        for payload in self._answer(f"read {start} {end} {now_s} {gc_before_s}", b"R"):
            yield _ROWS.decode(payload)

    def close(self) -> None:
        """End the process and remove what it needed."""
        self._process.kill()
        self._process.communicate()
        self._errors.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _answer(self, request: str, letter: bytes) -> Iterator[bytes]:
        assert self._process.stdin
        assert self._process.stdout
        try:
            self._process.stdin.write(f"{request}\n".encode())
            self._process.stdin.flush()
        except OSError:
            pass  # it is over; its last frame or its words say why
        yield from frames(self._process.stdout, letter, self._words)

    def _words(self) -> str:
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").splitlines()
        return lines[-1].strip() if lines else "it said nothing"


def command(folder: Path, *words: str) -> list[str]:
    """Return the command for a program of Cassandra's classes, a configuration below `folder`."""
    logback = folder / "logback.xml"
    logback.write_text(_LOGBACK)
    settings = folder / "cassandra.yaml"
    settings.write_text(json.dumps(_settings(folder)))
    return [
        str(java.program()),
        *artifacts.MODULES,
        "-Xmx512m",
        "-XX:+UseSerialGC",
        "-Djava.security.manager=allow",
        f"-Djava.io.tmpdir={folder}",
        f"-Djna.tmpdir={folder}",
        f"-Dcassandra.config={settings.as_uri()}",
        f"-Dcassandra.storagedir={folder}",
        f"-Dlogback.configurationFile={logback}",
        "-cp",
        artifacts.classpath(),
        *words,
    ]


def frames(stream: IO[bytes], letter: bytes, words: object) -> Iterator[bytes]:
    """Yield the payloads of one answer; only its end frame, with the right count, ends it.

    `words` is called for what the process said where the stream breaks off.
    """
    count = 0
    while True:
        head = stream.read(5)
        payload = stream.read(int.from_bytes(head[1:], "big")) if len(head) == 5 else b""
        if len(head) < 5 or len(payload) < int.from_bytes(head[1:], "big"):
            said = words() if callable(words) else words
            raise GroupScoresError(f"the reader of the snapshot ended in mid-answer: {said}")
        kind = head[:1]
        if kind == b"W":
            raise AddressError(_TEXT.decode(payload))
        if kind == b"X":
            raise GroupScoresError(f"the snapshot cannot be read: {_TEXT.decode(payload)}")
        if kind == b"E":
            if _COUNT.decode(payload) != count:
                raise GroupScoresError("the reader of the snapshot lost rows on the way")
            return
        if kind != letter:
            raise GroupScoresError(f"the reader of the snapshot answered {kind!r}, not {letter!r}")
        # An array's length stands in its first five bytes: D frames are one file each.
        count += int.from_bytes(payload[1:5], "big") if letter == b"R" else 1
        yield payload


def _settings(folder: Path) -> dict[str, object]:
    seeds = [
        {
            "class_name": "org.apache.cassandra.locator.SimpleSeedProvider",
            "parameters": [{"seeds": "127.0.0.1"}],
        }
    ]
    return {
        "cluster_name": "snapshot",
        "partitioner": "org.apache.cassandra.dht.Murmur3Partitioner",
        "endpoint_snitch": "SimpleSnitch",
        "listen_address": "127.0.0.1",
        "seed_provider": seeds,
        "commitlog_sync": "periodic",
        "commitlog_sync_period": "10s",
        "data_file_directories": [str(folder / "data")],
        "commitlog_directory": str(folder / "commitlog"),
        "saved_caches_directory": str(folder / "caches"),
        "hints_directory": str(folder / "hints"),
        "cdc_raw_directory": str(folder / "cdc"),
        "disk_access_mode": "mmap_index_only",
        "storage_compatibility_mode": "NONE",  # else the formats that are new in 5.0 are refused
    }
