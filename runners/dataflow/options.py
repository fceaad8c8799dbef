"""What the Dataflow runner is given where the command line does not say otherwise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions, WorkerOptions

from group_scores.runners.beam_arguments import options_of, with_missing
from group_scores.stores.errors import AddressError

RUNNER = "DataflowRunner"

_NEEDED: Mapping[str, str] = {
    "--project": "ID",
    "--region": "REGION",
    "--temp_location": "gs://BUCKET/FOLDER",
    "--sdk_container_image": "IMAGE",
}
_BUCKETS = ("--temp_location", "--staging_location")
_INSTALLED = (
    "--extra_package",
    "--extra_packages",
    "--requirements_file",
    "--save_main_session",
    "--setup_file",
)
_EXPERIMENTS = (
    "use_runner_v2",
    # It would stage a list of what is installed here, and nothing else is staged.
    "disable_logging_submission_environment",
)
_MAX_WORKERS = 4
"""Dataflow's own bound is 100 and more, which a cluster of Cassandra may not stand."""
_READERS_A_WORKER = 2
"""Which worker has a reader is a matter of a hash: two each leave few without one."""


def with_defaults(arguments: Sequence[str], *, streams: bool, endless: bool) -> list[str]:
    """Return Beam's arguments with what is missing; an option that is there stays as it is.

    `streams` says that the source has no end, or commits what was read: Dataflow's batch mode does
    not tell when it is safe to. `endless` is the first of the two, and makes no difference: a
    streaming job whose source comes to its end is over.

    Raises AddressError for what is missing, or of no use there.
    """
    given = options_of(arguments)
    missing = [f"{name} {form}" for name, form in _NEEDED.items() if name not in given]
    if missing:
        raise AddressError(f"--runner {RUNNER} needs {', '.join(missing)} too")
    for name in _BUCKETS:
        place = given.get(name)
        if place is not None and not place.startswith("gs://"):
            raise AddressError(f"{name} {place} is no bucket; write gs://BUCKET/FOLDER")
    for name in _INSTALLED:
        if name in given:
            raise AddressError(
                f"{name}: nothing is installed when a worker starts; put it into the image of "
                "--sdk_container_image, and leave the option out"
            )
    wanted: dict[str, str | None] = {"--max_num_workers": str(_most_workers(given))}
    if streams:
        wanted |= {"--streaming": None, "--enable_streaming_engine": None}
    made = with_missing(arguments, wanted)
    return [*made, *(f"--experiments={name}" for name in _EXPERIMENTS)]


def _most_workers(given: Mapping[str, str | None]) -> int:
    """Return the bound on the workers where none is given: as many as it starts with, or more."""
    return max(_MAX_WORKERS, int(given.get("--num_workers") or 0))


def is_dataflow(options: PipelineOptions) -> bool:
    """Tell whether the options are for Dataflow."""
    return bool(options.view_as(StandardOptions).runner == RUNNER)


def readers(options: PipelineOptions) -> tuple[bytes, ...]:
    """Return the keys of an endless read's readers, for as many workers as there may be."""
    workers = options.view_as(WorkerOptions).max_num_workers or _MAX_WORKERS
    return tuple(b"%d" % number for number in range(workers * _READERS_A_WORKER))
