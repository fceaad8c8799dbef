"""From all attempts to what differs in the rows, and its repair: the graph of `verify`."""

from __future__ import annotations

from dataclasses import dataclass, replace

import apache_beam as beam

from group_scores.pipelines.sources import Source
from group_scores.scores import METRICS
from group_scores.stores import StoreConfig
from group_scores.transforms.combine_attempts import CombineAttempts
from group_scores.transforms.merge_agg import MergeAgg
from group_scores.transforms.orphan_rows import OrphanRows
from group_scores.transforms.progress import Progress
from group_scores.transforms.resources import shared_store
from group_scores.transforms.retry import Retry
from group_scores.transforms.scored_keys import ScoredKeys
from group_scores.transforms.verify_agg import VerifyAgg


@dataclass(frozen=True)
class VerifyJob:
    """Everything that the graph is built from.

    `source` gives attempts. Rows without any attempt are looked for in what its selection leaves
    of the store.
    """

    source: Source
    store: StoreConfig
    report: str
    metrics: tuple[str, ...] = METRICS
    retry: Retry = Retry()
    repair: bool = False
    prune: bool = False
    progress: Progress = Progress()

    def as_of_us(self) -> int:
        """Return a time that is not after the first read of the source, if that is still to come.

        A row that is written from then on is no orphan. Raises ServiceUnavailableError.
        """
        taken_us = self.source.taken_us
        if taken_us is not None:
            return taken_us
        return self.retry.call(lambda: shared_store(self.store).now_us())


def build_verify(root: beam.Pipeline, job: VerifyJob) -> beam.PCollection:
    """Apply the graph to `root`; every row that differs is written to the job's report."""
    pages = root | "ReadAttempts" >> job.source.read(job.retry.seconds, job.progress)
    best = pages | "FetchBestScore" >> CombineAttempts(job.store, job.retry)
    updates = best | "MergeAgg" >> MergeAgg(job.metrics)
    stored = ScoredKeys(
        job.store,
        job.source.selection,
        job.metrics,
        job.retry,
        job.source.rows_s,
        replace(job.progress, ranges_only=True),
    )
    orphans = updates | "OrphanRows" >> OrphanRows(stored, job.as_of_us())
    verify = VerifyAgg(
        job.store, job.report, job.metrics, job.retry, repair=job.repair, prune=job.prune
    )
    # Each by itself: brought together, all updates would wait for the last of the keys.
    compared = updates | "VerifyAgg" >> verify
    emptied = orphans | "VerifyOrphans" >> verify
    return (compared, emptied) | "All" >> beam.Flatten()
