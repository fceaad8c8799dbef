"""Where reports go: one file, a folder with a file for each course batch, or a stream."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Protocol
from urllib.parse import quote

from group_scores.reports.names import Names
from group_scores.reports.spill import CourseBatch

_LONGEST_NAME = 120  # bytes; file systems take 255, with what is put around it


class Format(Protocol):
    """One kind of report of a course batch."""

    @property
    def suffix(self) -> str:
        """What a file of it ends in, with the dot."""

    def write(self, batch: CourseBatch, out: BinaryIO, names: Names) -> int:
        """Write the report of one batch; return the number of learners. Raises OSError."""


def file_name(identifier: str) -> str:
    """Return an id as the name of one file or folder: never a path, and another for another id.

    Percent-encoded where it has to be; one that is too long is cut, and told apart by a digest.
    """
    name = quote(identifier, safe="", errors="replace") or "%"
    if name.startswith("."):
        name = "%2E" + name[1:]
    if len(name) > _LONGEST_NAME:
        digest = hashlib.sha256(identifier.encode("utf-8", "replace")).hexdigest()[:32]
        name = f"{name[: _LONGEST_NAME - len(digest) - 1]}%{digest}"
    return name


def path_in(folder: Path, batch: CourseBatch, suffix: str) -> Path:
    """Return the file in a folder of reports: COURSE/BATCH.csv; of a group GROUP/COURSE.csv."""
    if batch.group:
        return folder / file_name(batch.group.group_id) / f"{file_name(batch.course_id)}{suffix}"
    return folder / file_name(batch.course_id) / f"{file_name(batch.batch_id)}{suffix}"


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Open a file that takes the place of `path` when all of it is on the disk, or never.

    Raises OSError; the folder has to be there. What is not finished is removed.
    """
    # A link is followed: what it names is to be replaced, not the link.
    target = Path(os.path.realpath(path))
    temporary = target.with_name(f".group-scores-{os.getpid()}-{target.name[-100:]}")
    try:
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()
