"""From events to best scores: the one graph, whatever it reads and wherever it runs."""

from __future__ import annotations

import apache_beam as beam

from group_scores.pipelines.options import Job
from group_scores.transforms.await_attempt import AwaitAttempt
from group_scores.transforms.batching import SCANNED, BatchSize, Outcome
from group_scores.transforms.certificate import RequestCertificates
from group_scores.transforms.check_content import CheckContent
from group_scores.transforms.combine_attempts import CombineAttempts
from group_scores.transforms.dead_letter import WriteDeadLetters
from group_scores.transforms.fetch_best_score import FetchBestScore
from group_scores.transforms.merge_agg import MergeAgg
from group_scores.transforms.parse_event import ParseEvent
from group_scores.transforms.score_attempt import ScoreAttempt
from group_scores.transforms.write_agg import WriteAgg
from group_scores.transforms.write_attempt import WriteAttempt


def build(root: beam.Pipeline, job: Job) -> beam.PCollection:
    """Apply the graph to `root` and return the processed activities.

    The source says which of its two modes the graph is in: it gives events, which are scored one
    by one, or all the attempts of a table or a snapshot, whose rows are written where they differ.
    From the read to the last write nothing is shuffled: a source's offsets are committed with the
    bundle that wrote what they stand for, and correctness needs no order.
    """
    from_scan = job.source.gives == "attempts"
    best = _best_of_scan(root, job) if from_scan else _best_of_events(root, job)
    updates = best | "MergeAgg" >> MergeAgg(job.metrics)
    size = SCANNED if from_scan else BatchSize()
    write_agg = WriteAgg(job.store, job.metrics, job.retry, size, changed_only=from_scan)
    processed = _keep(job, "WriteAgg", updates | "WriteAgg" >> write_agg)
    if job.cert_events:
        _ = processed | "RequestCertificates" >> RequestCertificates(job.cert_events, job.retry)
    return processed


def _best_of_scan(root: beam.Pipeline, job: Job) -> beam.PCollection:
    """Batch mode: the attempts of a learner come together, and are combined as they come."""
    pages = root | "ReadAttempts" >> job.source.read(job.retry.seconds, job.progress)
    return pages | "FetchBestScore" >> CombineAttempts(job.store, job.retry)


def _best_of_events(root: beam.Pipeline, job: Job) -> beam.PCollection:
    """Streaming mode: each event's attempt is written, then its learner's are read."""
    records = root | "ReadEvents" >> job.source.read(job.retry.seconds, job.progress)
    events = _keep(job, "ParseEvent", records | "ParseEvent" >> ParseEvent(job.progress))
    if job.content_index:
        check = CheckContent(job.content_index, job.retry)
        events = _keep(job, "CheckContent", events | "CheckContent" >> check)
    scored = _keep(job, "ScoreAttempt", events | "ScoreAttempt" >> ScoreAttempt())
    assessed = _assessed(job, scored)
    return assessed | "FetchBestScore" >> FetchBestScore(job.store, job.retry)


def _assessed(job: Job, scored: beam.PCollection) -> beam.PCollection:
    """The attempts are in the table: written here, or by the job that is waited for."""
    if job.attempts == "await":
        wait = AwaitAttempt(job.store, job.await_s, job.retry)
        return _keep(job, "AwaitAttempt", scored | "AwaitAttempt" >> wait)
    write = WriteAttempt(job.store, job.retry)
    return _keep(job, "WriteAttempt", scored | "WriteAttempt" >> write)


def _keep(job: Job, stage: str, outcome: Outcome) -> beam.PCollection:
    """Send what the stage refused to the dead letter and go on with the rest."""
    _ = outcome.refused | f"DeadLetter{stage}" >> WriteDeadLetters(job.dead_letter, job.retry)
    return outcome.accepted
