"""What the Flink runner is given where the command line does not say otherwise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from group_scores.runners.flink.job_server import job_server_jar
from group_scores.stores import java
from group_scores.stores.errors import AddressError

EMBEDDED = ("[local]", "[auto]")
"""Masters that are a Flink inside the job server, on this machine."""

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

    Raises AddressError for a master that is missing or another, GroupScoresError where the job
    server cannot be had.
    """
    given = options_of(arguments)
    master = given.get("--flink_master")
    if master not in EMBEDDED:
        given_as = "without --flink_master" if master is None else f"on --flink_master {master}"
        raise AddressError(
            f"--runner FlinkRunner {given_as}: clusters are not built yet; "
            "name [local], a Flink on this machine"
        )
    wanted: dict[str, str | None] = {"--parallelism": "1"}
    if streams:
        wanted |= _STREAMING
        if not endless:
            # With checkpoints Flink keeps sources alive that are done, and so the job.
            wanted["--shutdown_sources_after_idle_ms"] = "0"
    if "--flink_job_server_jar" not in given:
        wanted["--flink_job_server_jar"] = str(job_server_jar())
        wanted["--job_server_java_launcher"] = str(java.program())
    missing = [(name, value) for name, value in wanted.items() if name not in given]
    return [*arguments, *(name if value is None else f"{name}={value}" for name, value in missing)]


def options_of(arguments: Sequence[str]) -> dict[str, str | None]:
    """Return the options by name, and the value of each where it has one."""
    found: dict[str, str | None] = {}
    last = ""
    for argument in arguments:
        if argument.startswith("--"):
            last, equals, value = argument.partition("=")
            found[last] = value if equals else None
        elif last and found[last] is None:
            found[last] = argument
    return found
