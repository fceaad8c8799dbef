"""Beam's own options, passed through: what is known, what is misspelt."""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import shlex
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence

from apache_beam.options.pipeline_options import DirectOptions, PipelineOptions, StandardOptions
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.runners.runner import PipelineRunner
from apache_beam.transforms.environments import SubprocessSDKEnvironment

from group_scores.runners.command import DEBUG
from group_scores.runners.dataflow import options as dataflow_options
from group_scores.runners.flink import options as flink_options
from group_scores.runners.logs import OPTION, debugging, log_format
from group_scores.stores.address import did_you_mean
from group_scores.stores.errors import AddressError

LOCAL_RUNNER = "apache_beam.runners.portability.fn_api_runner.FnApiRunner"
"""Named itself: `DirectRunner` first tries to download another runner and may end up with it."""

_LOCAL_NAMES = ("DirectRunner", "FnApiRunner")
FLINK_RUNNER = "FlinkRunner"
_RUNNERS = (FLINK_RUNNER, dataflow_options.RUNNER)
_LATER = ("PortableRunner", "SparkRunner")
FLINK_OPTIONS = frozenset(
    {
        "--allow_non_restored_state",
        "--auto_balance_write_files_sharding_enabled",
        "--autowatermark_interval",
        "--checkpoint_timeout_millis",
        "--checkpointing_interval",
        "--checkpointing_mode",
        "--disable_metrics",
        "--execution_mode_for_batch",
        "--execution_retry_delay",
        "--externalized_checkpoints_enabled",
        "--fail_on_checkpointing_errors",
        "--finish_bundle_before_checkpointing",
        "--flink_conf_dir",
        "--force_unaligned_checkpoint_enabled",
        "--latency_tracking_interval",
        "--max_bundle_size",
        "--max_bundle_time_mills",
        "--max_parallelism",
        "--min_pause_between_checkpoints",
        "--number_of_concurrent_checkpoints",
        "--number_of_execution_retries",
        "--object_reuse",
        "--operator_chaining",
        "--parallelism",
        "--re_iterable_group_by_key_result",
        "--retain_externalized_checkpoints_on_cancellation",
        "--savepoint_path",
        "--shutdown_sources_after_idle_ms",
        "--state_backend",
        "--state_backend_storage_path",
        "--tolerable_checkpoint_failure_number",
        "--unaligned_checkpoint_enabled",
    }
)
"""The Flink runner's own options: the Python SDK does not know them and hands them on."""


def pipeline_options(
    arguments: Sequence[str], own: Iterable[str], *, streams: bool = False, endless: bool = False
) -> PipelineOptions:
    """Return Beam's options for the `arguments` that are not ours.

    `own` are our own option names, for the hint at a misspelt one. `streams` and `endless` are
    those of the source. Raises AddressError for an option that neither Beam nor the Flink runner
    has, and for a value that does not fit.
    """
    parser = _beam_parser()
    known = {name: action for action in parser._actions for name in action.option_strings}
    _check_names(arguments, known, [*known, *FLINK_OPTIONS, *own])
    _check_values(parser, arguments)
    runner = _runner(arguments)
    if runner == FLINK_RUNNER:
        arguments = flink_options.with_defaults(arguments, streams=streams, endless=endless)
    elif runner == dataflow_options.RUNNER:
        arguments = dataflow_options.with_defaults(arguments, streams=streams, endless=endless)
    elif endless:
        raise AddressError(
            f"until=forever needs a runner that streams: add --runner {FLINK_RUNNER} "
            "--flink_master [local]; until=latest reads what is there"
        )
    options = PipelineOptions(list(arguments), runner=runner)
    if (options.view_as(DirectOptions).direct_num_workers or 0) < 0:
        raise AddressError("--direct_num_workers is below 0; 0 means one for each core")
    return options


def runner_of(options: PipelineOptions) -> PipelineRunner | None:
    """Return our own form of the runner, None where Beam's is good as it is.

    Several local processes: Beam would start its own worker program, which logs everything, and by
    a command line that a blank in the path of Python breaks. Takes `--direct_running_mode` out of
    the options.
    """
    if options.view_as(StandardOptions).runner == FLINK_RUNNER:
        from group_scores.runners.flink.runner import Flink  # it loads much that is seldom needed

        return Flink()
    direct = options.view_as(DirectOptions)
    if direct.direct_running_mode != "multi_processing":
        return None
    direct.direct_running_mode = ""
    # -P: what lies in the current folder is not to be taken for a library.
    words = [sys.executable, "-P", "-m", "group_scores.runners.worker"]
    if log_format() == "json":
        words.append(f"{OPTION}=json")
    if debugging():
        words.append(DEBUG)
    environment = SubprocessSDKEnvironment.from_command_string(f"exec {shlex.join(words)}")
    return FnApiRunner(default_environment=environment)


def runner_checks(options: PipelineOptions) -> dict[str, Callable[[], object]]:
    """Return what is to be looked at of the runner before a run, by what it is."""
    if options.view_as(StandardOptions).runner != FLINK_RUNNER:
        return {}
    from group_scores.runners.flink.runner import checks

    return checks(options)


def runner_described(options: PipelineOptions) -> str | None:
    """Say in a line where a run goes that leaves this machine; None where it stays."""
    if options.view_as(StandardOptions).runner != FLINK_RUNNER:
        return None
    from group_scores.runners.flink.runner import cluster_of, described

    return described(options) if cluster_of(options) else None


@contextlib.contextmanager
def quiet_threads(options: PipelineOptions) -> Iterator[None]:
    """Keep off the terminal the traceback that Beam prints where a worker thread's bundle fails.

    It logs it as well, and the launcher tells the cause in one line. Flink's workers, too, are
    threads of this process.
    """
    mode = options.view_as(DirectOptions).direct_running_mode
    if mode == "multi_threading" or options.view_as(StandardOptions).runner == FLINK_RUNNER:
        with open(os.devnull, "w") as nowhere, contextlib.redirect_stderr(nowhere):
            yield
    else:
        yield


def _check_names(
    arguments: Sequence[str], known: dict[str, argparse.Action], all_names: list[str]
) -> None:
    seen: set[str] = set()
    value_follows = False
    for argument in arguments:
        name, equals, value = argument.partition("=")
        action = known.get(name)
        if name.startswith("--"):
            if action is None and name not in FLINK_OPTIONS:
                raise AddressError(f"unknown option {name}{did_you_mean(name, all_names)}")
            if name in seen and (action is None or type(action) is argparse._StoreAction):
                raise AddressError(f"{name} is given twice; give it once")
            if equals and not value:
                raise AddressError(f"{name} has no value; give it one or leave it out")
            seen.add(name)
            value_follows = (action is None or action.nargs != 0) and not equals
        elif not value_follows:
            raise AddressError(f"unexpected {argument!r}; options begin with --, see --help")
        else:
            value_follows = action is not None and action.nargs in ("*", "+")


def _beam_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for options in PipelineOptions.__subclasses__():
        if options.__module__.startswith("apache_beam."):
            with contextlib.suppress(argparse.ArgumentError):
                options._add_argparse_args(parser)
    return parser


def _check_values(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> None:
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            parser.parse_known_args(list(arguments))
    except SystemExit:
        reason = said.getvalue().strip().rpartition("error: ")[2]
        raise AddressError(reason) from None


def _runner(arguments: Sequence[str]) -> str:
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--runner", default=_LOCAL_NAMES[0])
    name = parser.parse_known_args(list(arguments))[0].runner
    if name == LOCAL_RUNNER or name.lower() in map(str.lower, _LOCAL_NAMES):
        return LOCAL_RUNNER
    for runner in _RUNNERS:
        if name.lower() == runner.lower():
            return runner
    known = " or ".join((_LOCAL_NAMES[0], *_RUNNERS))
    if name.lower() in map(str.lower, _LATER):
        raise AddressError(f"--runner {name} is not built yet; use {known}")
    raise AddressError(
        f"unknown runner {name!r}{did_you_mean(name, (*_LOCAL_NAMES, *_RUNNERS, *_LATER))} "
        f"(use {known})"
    )
