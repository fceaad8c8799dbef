"""Read events from files of JSON lines, plain or gzipped, or from standard input."""

from __future__ import annotations

import errno
import glob
import gzip
import os
import stat
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, cast

import apache_beam as beam

from group_scores.scores import SourceRecord
from group_scores.stores.errors import AddressError

STDIN = "-"
FilePart = tuple[str, int, int]
"""A path and the bytes from .. to in which a part's lines begin."""

_TO_THE_END = 2**63 - 1
_SMALLEST_PART = 4 << 20
_LARGEST_PART = 64 << 20
_PARTS = 16  # of one file at least, where it is large enough: several workers share it
_BOM = b"\xef\xbb\xbf"


def matching_files(pattern: str) -> list[str]:
    """Return the absolute paths that a path or a glob names, in their order; no folders."""
    paths = [pattern] if os.path.lexists(pattern) else glob.glob(pattern, recursive=True)
    return [os.path.abspath(path) for path in sorted(paths) if not os.path.isdir(path)]


def file_parts(path: str) -> list[FilePart]:
    """Cut a file into parts that can be read apart; what can only be read through is one part.

    Raises AddressError where it cannot be looked at.
    """
    with _readable(path):
        status = os.stat(path)
        if not os.access(path, os.R_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    if path.endswith(".gz") or not stat.S_ISREG(status.st_mode):
        return [(path, 0, _TO_THE_END)]
    size = status.st_size
    step = max(_SMALLEST_PART, min(_LARGEST_PART, size // _PARTS))
    return [(path, start, min(start + step, size)) for start in range(0, size, step)]


def read_lines(part: FilePart) -> Iterator[SourceRecord]:
    """Yield the lines that begin in the part, without their ends; blank lines are passed over.

    Raises AddressError for a file that cannot be read, or is not what its name says.
    """
    path, start, stop = part
    with _readable(path), open_lines(path) as file:
        position = start
        if start > 0:
            # The line that this byte is in the middle of belongs to the part before.
            file.seek(start - 1)
            position += len(file.readline()) - 1
        while position < stop and (line := file.readline()):
            text = line.removeprefix(_BOM) if position == 0 else line
            if text and not text.isspace():
                yield SourceRecord(text.rstrip(b"\r\n"), path, None, position)
            position += len(line)


def count_lines(path: str) -> int:
    """Count a file's lines, blank ones as well, by reading it; raises AddressError."""
    count, last = 0, b"\n"
    with _readable(path), open_lines(path) as file:
        while chunk := file.read(1 << 20):
            count += chunk.count(b"\n")
            last = chunk[-1:]
    return count + (last != b"\n")


@contextmanager
def open_lines(path: str) -> Iterator[IO[bytes]]:
    """Open a file for reading, unpacked if its name ends in .gz, or standard input."""
    if path == STDIN:
        if sys.stdin is None:
            raise AddressError("standard input is closed; name a file, or pipe the events in")
        yield sys.stdin.buffer
    elif path.endswith(".gz"):
        with gzip.open(path) as packed:
            yield cast(IO[bytes], packed)
    else:
        with open(path, "rb") as file:
            yield file


@contextmanager
def _readable(path: str) -> Iterator[None]:
    try:
        yield
    except EOFError:
        raise AddressError(f"{path} is cut off: its gzip data has no end; get it again") from None
    except (gzip.BadGzipFile, zlib.error) as error:
        raise AddressError(
            f"{path} is not good gzip ({error}); get it again, or rename it if it is not packed"
        ) from None
    except OSError as error:
        raise AddressError(
            f"{path} cannot be read: {error.strerror or error}; mend that, or name another file"
        ) from None


@dataclass
class ReadFromFiles(beam.PTransform):
    """Read one event a line from the files that match `pattern`, or from `-`, standard input.

    The files are looked for when the pipeline is built, and cut into parts for several workers.
    Raises AddressError where there is none.
    """

    pattern: str

    def expand(self, root: beam.pvalue.PBegin) -> beam.PCollection:
        """Nothing -> SourceRecord."""
        read = beam.FlatMap(read_lines).with_output_types(SourceRecord)
        parts = beam.Create(self._parts()).with_output_types(FilePart)
        return root | "Parts" >> parts | "Lines" >> read

    def _parts(self) -> list[FilePart]:
        if self.pattern == STDIN:
            return [(STDIN, 0, _TO_THE_END)]
        paths = matching_files(self.pattern)
        if not paths:
            raise AddressError(f"no file {self.pattern!r}; name a .jsonl or .jsonl.gz file")
        return [part for path in paths for part in file_parts(path)]
