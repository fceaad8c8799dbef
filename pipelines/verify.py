"""From all attempts to what differs in the rows, and its repair: the graph of `verify`."""

from __future__ import annotations

from dataclasses import dataclass

import apache_beam as beam

from group_scores.pipelines.sources import Source
from group_scores.scores import METRICS
from group_scores.stores import Selection, StoreConfig
from group_scores.transforms.combine_attempts import CombineAttempts
from group_scores.transforms.merge_agg import MergeAgg
from group_scores.transforms.orphan_rows import OrphanRows
from group_scores.transforms.progress import Progress
from group_scores.transforms.retry import Retry
from group_scores.transforms.verify_agg import VerifyAgg


@dataclass(frozen=True)
class VerifyJob:
    """Everything that the graph is built from.

    `source` gives attempts. Rows without any attempt are looked for in what `selection` leaves of
    the store, as of `t_us`: a time that is not after the first read of the source.
    """

    source: Source
    store: StoreConfig
    report: str
    t_us: int
    selection: Selection = Selection()
    metrics: tuple[str, ...] = METRICS
    retry: Retry = Retry()
    repair: bool = False
    prune: bool = False
    progress: Progress = Progress()


def build_verify(root: beam.Pipeline, job: VerifyJob) -> beam.PCollection:
    """Apply the graph to `root`; every row that differs is written to the job's report."""
    pages = root | "ReadAttempts" >> job.source.read(job.retry.seconds, job.progress)
    best = pages | "FetchBestScore" >> CombineAttempts(job.store, job.retry)
    updates = best | "MergeAgg" >> MergeAgg(job.metrics)
    orphans = updates | "OrphanRows" >> OrphanRows(
        job.store, job.t_us, job.selection, job.metrics, job.retry
    )
    verify = VerifyAgg(
        job.store, job.report, job.metrics, job.retry, repair=job.repair, prune=job.prune
    )
    return (updates, orphans) | "All" >> beam.Flatten() | "VerifyAgg" >> verify
