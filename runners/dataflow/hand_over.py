"""Check what a job on Dataflow needs, and hand it over."""

from __future__ import annotations

import json

from apache_beam.options.pipeline_options import PipelineOptions

from group_scores.pipelines import Job
from group_scores.runners import launch
from group_scores.runners.dataflow.reach import check_addresses, check_google
from group_scores.stores.errors import AddressError, GroupScoresError


def hand_over(source: str, job: Job, options: PipelineOptions, summary: str | None) -> str:
    """Start the job whose source has this address, and return what is to be told of it.

    Servers are asked from here first, so here they have to be reached as well. Raises AddressError
    for what the workers would not find, and what `launch.check` and `launch.hand_over` raise.
    """
    if summary:
        raise AddressError("--summary: a job on Dataflow is not waited for; leave it out")
    check_addresses(
        {
            "--source": source,
            "--store": job.store.address,
            "--dead-letter": job.dead_letter,
            "--cert-events": job.cert_events,
            "--content-index": job.content_index,
        }
    )
    check_google()
    launch.check(job)
    try:
        job_id = launch.hand_over(job, options)
    except GroupScoresError as error:
        if (refusal := _refusal(error.__cause__)) is None:
            raise
        raise GroupScoresError(f"Dataflow does not take the job: {refusal}") from error
    return f"handed over to Dataflow{f' as {job_id}' if job_id else ''}; it counts there"


def _refusal(error: BaseException | None) -> str | None:
    """Return what Google's service says in an answer that its client raises as an error."""
    try:
        return str(json.loads(getattr(error, "content", ""))["error"]["message"])
    except (ValueError, TypeError, KeyError):
        return None
