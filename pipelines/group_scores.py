"""From events to best scores: the one graph, whatever it reads and wherever it runs."""

from __future__ import annotations

import apache_beam as beam

from group_scores.pipelines.options import Job
from group_scores.transforms.await_attempt import AwaitAttempt
from group_scores.transforms.batching import Outcome
from group_scores.transforms.certificate import RequestCertificates
from group_scores.transforms.check_content import CheckContent
from group_scores.transforms.dead_letter import WriteDeadLetters
from group_scores.transforms.fetch_best_score import FetchBestScore
from group_scores.transforms.merge_agg import MergeAgg
from group_scores.transforms.parse_event import ParseEvent
from group_scores.transforms.score_attempt import ScoreAttempt
from group_scores.transforms.write_agg import WriteAgg
from group_scores.transforms.write_attempt import WriteAttempt


def build(root: beam.Pipeline, job: Job) -> beam.PCollection:
    """Apply the graph to `root` and return the processed activities.

    From the read to the last write nothing is shuffled: a source's offsets are committed with the
    bundle that wrote what they stand for, and correctness needs no order.
    """
    records = root | "ReadEvents" >> job.source.read(job.retry.seconds)
    events = _keep(job, "ParseEvent", records | "ParseEvent" >> ParseEvent(job.progress))
    if job.content_index:
        check = CheckContent(job.content_index, job.retry)
        events = _keep(job, "CheckContent", events | "CheckContent" >> check)
    scored = _keep(job, "ScoreAttempt", events | "ScoreAttempt" >> ScoreAttempt())
    assessed = _assessed(job, scored)
    best = assessed | "FetchBestScore" >> FetchBestScore(job.store, job.retry)
    updates = best | "MergeAgg" >> MergeAgg(job.metrics)
    write_agg = WriteAgg(job.store, job.metrics, job.retry)
    processed = _keep(job, "WriteAgg", updates | "WriteAgg" >> write_agg)
    if job.cert_events:
        _ = processed | "RequestCertificates" >> RequestCertificates(job.cert_events, job.retry)
    return processed


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
