"""Read events from files of JSON lines, plain or gzipped, or from standard input."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import apache_beam as beam
from apache_beam.io import filebasedsource

from group_scores.scores import SourceRecord

STDIN = "-"


class _LinesSource(filebasedsource.FileBasedSource):
    """Lines with the byte at which each starts, split at any byte of an uncompressed file."""

    def read_records(self, file_name: str, range_tracker: Any) -> Iterator[SourceRecord]:
        with self.open_file(file_name) as file:
            position = range_tracker.start_position() or 0
            if position > 0:
                # The line that this byte is in the middle of belongs to the range before.
                file.seek(position - 1)
                position += len(file.readline()) - 1
            while range_tracker.try_claim(position):
                line = file.readline()
                if not line:
                    return
                if not line.isspace():
                    yield SourceRecord(line.rstrip(b"\r\n"), file_name, None, position)
                position += len(line)


@dataclass
class ReadFromFiles(beam.PTransform):
    """Read one event a line from the files that match `pattern`; blank lines are passed over.

    Raises OSError where no file matches.
    """

    pattern: str

    def expand(self, root: beam.pvalue.PBegin) -> beam.PCollection:
        """Nothing -> SourceRecord."""
        if self.pattern == STDIN:
            return (
                root
                | beam.Create([STDIN])
                | beam.FlatMap(_read_stdin).with_output_types(SourceRecord)
            )
        return root | beam.io.Read(_LinesSource(self.pattern)).with_output_types(SourceRecord)


def _read_stdin(name: str) -> Iterator[SourceRecord]:
    position = 0
    for line in sys.stdin.buffer:
        if not line.isspace():
            yield SourceRecord(line.rstrip(b"\r\n"), name, None, position)
        position += len(line)
