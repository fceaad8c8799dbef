"""Rows of a report in order, by course, batch and learner, however many there are.

A store gives rows in an order of its own, a cluster in one that mixes all batches, and which
assessments a batch has is known when its last row has been seen. So the rows are sorted outside of
memory: as many as the memory may hold are sorted and put into a file as a run, and the runs are
merged when they are read. One read of the store instead of two, which is dear on a cluster and
could differ from the first; and two reports of the same rows are the same to the byte.
"""

from __future__ import annotations

import heapq
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter
from typing import IO

import msgspec

from group_scores.reports.group import Group
from group_scores.scores.report import ReportRow

RUN_BYTES = 32 * 2**20
_ROW_BYTES = 300  # about what Python needs for a row in the list, beside its bytes
_READ_BYTES = 32 * 2**10  # of each run at a time
_LENGTH = 4

Key = tuple[str, str, str]
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(ReportRow).decode


@dataclass(frozen=True)
class CourseBatch:
    """One batch of a course: its assessments' ids in order, and the rows, to be gone over once.

    With a `group` it is the group's members in the course, and the rows are of any of its batches.
    """

    course_id: str
    batch_id: str
    contents: tuple[str, ...]
    rows: Iterator[ReportRow]
    group: Group | None = None


class Spill:
    """Takes rows in any order, then gives them by course batch; a `with` block removes its file.

    `rows` is how many it has taken, `given` how many it has given.

    Holds at most about `run_bytes` of rows, the ids of each batch's assessments, and a buffer for
    each run. `folder` is where the file goes, by default that of temporary files.
    """

    def __init__(self, folder: str | None = None, run_bytes: int = RUN_BYTES) -> None:
        self._folder = folder
        self._run_bytes = run_bytes
        self._held: list[tuple[Key, bytes]] = []
        self._bytes = 0
        self._contents: dict[tuple[str, str], set[str]] = {}
        self._file: IO[bytes] | None = None
        self._runs: list[tuple[int, int]] = []
        self.rows = 0
        self.given = 0

    def __enter__(self) -> Spill:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    @property
    def course_batches(self) -> int:
        """How many there are so far."""
        return len(self._contents)

    @property
    def contents(self) -> set[str]:
        """The ids of all assessments so far."""
        return set().union(*self._contents.values())

    def add(self, row: ReportRow) -> None:
        """Take a row; raises OSError where the file cannot be written."""
        data = _encode(row)
        self._held.append((row.key, data))
        self._bytes += len(data) + _ROW_BYTES
        self._contents.setdefault(row.key[:2], set()).update(row.scores)
        self.rows += 1
        if self._bytes >= self._run_bytes:
            self._write_run()

    def _write_run(self) -> None:
        if self._file is None:
            self._file = tempfile.TemporaryFile(  # noqa: SIM115  # open as long as this is
                prefix="group-scores-report-", dir=self._folder
            )
        self._held.sort()
        start = self._file.tell()
        for _, data in self._held:
            self._file.write(len(data).to_bytes(_LENGTH, "big"))
            self._file.write(data)
        self._file.flush()
        self._runs.append((start, self._file.tell()))
        self._held.clear()
        self._bytes = 0

    def by_course_batch(self) -> Iterator[CourseBatch]:
        """Yield the course batches; each one's rows before the next is asked for."""
        for place, rows in groupby(self._sorted(), key=lambda row: row.key[:2]):
            course, batch = place
            contents = tuple(sorted(self._contents[place]))
            yield CourseBatch(course, batch, contents, self._counted(rows))

    def _counted(self, rows: Iterator[ReportRow]) -> Iterator[ReportRow]:
        for row in rows:
            self.given += 1
            yield row

    def _sorted(self) -> Iterator[ReportRow]:
        self._held.sort()
        held = (_decode(data) for _, data in self._held)
        runs = [self._read_run(start, end) for start, end in self._runs]
        return heapq.merge(*runs, held, key=attrgetter("key")) if runs else held

    def _read_run(self, start: int, end: int) -> Iterator[ReportRow]:
        assert self._file is not None
        number = self._file.fileno()
        buffer = b""
        place = 0
        while True:
            size = int.from_bytes(buffer[place : place + _LENGTH], "big")
            next_place = place + _LENGTH + size
            if len(buffer) - place >= _LENGTH and next_place <= len(buffer):
                yield _decode(buffer[place + _LENGTH : next_place])
                place = next_place
                continue
            wanted = max(_READ_BYTES, _LENGTH + size)
            # By position: the runs are read in turns.
            more = os.pread(number, min(wanted, end - start), start)
            start += len(more)
            buffer = buffer[place:] + more
            place = 0
            if not more:
                return
