"""From all aggregate rows to a report of each course batch: the graph of `report`.

The rows are shuffled by course batch. Beam's local runner keeps what it shuffles in memory: on one
machine `report` without a runner is the way, which sorts outside of memory.
"""

from __future__ import annotations

from dataclasses import dataclass

import apache_beam as beam

from group_scores.reports.names import NameSource
from group_scores.stores import Selection, StoreConfig
from group_scores.transforms.progress import Progress
from group_scores.transforms.read_report_rows import ReadReportRows
from group_scores.transforms.retry import Retry
from group_scores.transforms.write_reports import WriteReports


@dataclass(frozen=True)
class ReportJob:
    """Everything that the graph is built from; `folder` is one that every worker sees."""

    store: StoreConfig
    folder: str
    format: str
    selection: Selection = Selection()
    names: NameSource = NameSource()
    retry: Retry = Retry()
    progress: Progress = Progress()


def build_report(root: beam.Pipeline, job: ReportJob) -> beam.PCollection:
    """Apply the graph to `root`; it writes a file for each course batch into the job's folder."""
    read = ReadReportRows(job.store, job.selection, job.retry, job.progress)
    rows = root | "ReadReportRows" >> read
    return rows | "WriteReports" >> WriteReports(job.folder, job.format, job.names)
