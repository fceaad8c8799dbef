"""WriteReports: a file for each course batch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import apache_beam as beam
import msgspec
from apache_beam.metrics import Metrics

from group_scores.reports.content_names import NamesNow
from group_scores.reports.names import NameSource
from group_scores.reports.spill import Spill
from group_scores.reports.write import format_of, write_folder
from group_scores.scores.report import ReportRow
from group_scores.transforms.metrics import NAMESPACE

_decode = msgspec.msgpack.Decoder(ReportRow).decode


@dataclass
class WriteReports(beam.PTransform):
    """Write COURSE/BATCH and the format's ending into a folder that every worker sees.

    A learner comes once in a course batch. A course batch is sorted by one worker, outside of its
    memory, and its file appears when it is whole; one that is written again takes its place.
    """

    folder: str
    format: str
    names: NameSource

    def expand(self, rows: beam.PCollection) -> beam.PCollection:
        """PlacedRow -> int, how many learners a course batch has; its file is there then."""
        by_place = rows | "ByCourseBatch" >> beam.GroupByKey()
        write = _WriteFn(self.folder, self.format, self.names)
        return by_place | "Write" >> beam.ParDo(write).with_output_types(int)


class _WriteFn(beam.DoFn):
    def __init__(self, folder: str, format_name: str, names: NameSource) -> None:
        self._folder = folder
        self._format = format_name
        self._source = names
        self._names: NamesNow | None = None
        self._files = Metrics.counter(NAMESPACE, "reports_written")
        self._learners = Metrics.counter(NAMESPACE, "learners_reported")

    def setup(self) -> None:
        self._names = self._source.open()

    def teardown(self) -> None:
        if self._names:
            self._names.close()

    def process(self, group: tuple[bytes, Iterable[bytes]]) -> Iterator[int]:
        with Spill() as spill:
            for row in group[1]:
                spill.add(_decode(row))
            assert self._names is not None
            names = self._names.names_of(spill.contents)
            write_folder(spill, format_of(self._format), Path(self._folder), names)
            self._files.inc()
            self._learners.inc(spill.rows)
            yield spill.rows
