"""What the Flink runner is given where the command line does not say otherwise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from group_scores.runners.beam_arguments import options_of, with_missing
from group_scores.runners.flink.cluster import Cluster
from group_scores.runners.flink.job_server import job_server_jar
from group_scores.stores import java
from group_scores.stores.errors import AddressError

EMBEDDED = ("[local]", "[auto]")
"""Masters that are a Flink inside the job server, on this machine."""

POOL = "localhost:50000"
"""Where a task manager asks for Python workers: the worker pool in its pod, or on its host."""

JOB_NAME = "group-scores"

_STREAMING: Mapping[str, str | None] = {
    "--streaming": None,
    # State is a few bytes a partition; what costs is what is read again after a crash.
    "--checkpointing_interval": "10000",
    # A checkpoint that overlaps the first bundle can lose what a splittable DoFn starts with.
    "--finish_bundle_before_checkpointing": None,
    # A bundle ends so often, and with it every stage writes: latency, against the size of batches.
    "--max_bundle_time_mills": "100",
}


def with_defaults(arguments: Sequence[str], *, streams: bool, endless: bool) -> list[str]:
    """Return Beam's arguments with what is missing; an option that is there stays as it is.

    `streams` says that the source has no end, or commits what was read: Flink's batch mode does not
    tell when it is safe to. `endless` is the first of the two.

    Raises AddressError for a master that is missing or no address, ServiceUnavailableError for one
    that does not answer, GroupScoresError where the job server cannot be had.
    """
    given = options_of(arguments)
    master = given.get("--flink_master")
    if master is None:
        raise AddressError(
            "--runner FlinkRunner without --flink_master: give HOST:PORT of a cluster's REST "
            "interface, or [local], a Flink on this machine"
        )
    wanted: dict[str, str | None] = {"--parallelism": "1"}
    if streams:
        wanted |= _STREAMING
        if not endless:
            # With checkpoints Flink keeps sources alive that are done, and so the job.
            wanted["--shutdown_sources_after_idle_ms"] = "0"
    if master not in EMBEDDED:
        wanted |= _of_cluster(Cluster.parse(master), given, endless=endless)
    if "--flink_job_server_jar" not in given:
        wanted["--flink_job_server_jar"] = str(job_server_jar())
        wanted["--job_server_java_launcher"] = str(java.program())
    return with_missing(arguments, wanted)


def _of_cluster(
    cluster: Cluster, given: Mapping[str, str | None], *, endless: bool
) -> dict[str, str | None]:
    kind = given.get("--environment_type") or "EXTERNAL"
    wanted: dict[str, str | None] = {"--environment_type": kind}
    if kind == "EXTERNAL":
        wanted["--environment_config"] = POOL
    if endless:
        wanted["--job_name"] = JOB_NAME  # by which a second one is told from the first
    if "--sdk_worker_parallelism" not in given:
        # A process for each slot: two slots in one process would share one core.
        wanted["--sdk_worker_parallelism"] = str(cluster.slots_a_task_manager())
    return wanted
