"""Beam's own options, passed through: what is known, what is misspelt."""

from __future__ import annotations

import argparse
import contextlib
import io
from collections.abc import Iterable, Sequence

from apache_beam.options.pipeline_options import PipelineOptions

from group_scores.stores.address import did_you_mean
from group_scores.stores.errors import AddressError

LOCAL_RUNNER = "apache_beam.runners.portability.fn_api_runner.FnApiRunner"
"""Named itself: `DirectRunner` first tries to download another runner and may end up with it."""

_LOCAL_NAMES = ("DirectRunner", "FnApiRunner")
_LATER = ("FlinkRunner", "DataflowRunner", "PortableRunner", "SparkRunner")
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


def pipeline_options(arguments: Sequence[str], own: Iterable[str]) -> PipelineOptions:
    """Return Beam's options for the `arguments` that are not ours.

    `own` are our own option names, for the hint at a misspelt one. Raises AddressError for an
    option that neither Beam nor the Flink runner has, and for a value that does not fit.
    """
    parser = _beam_parser()
    takes_value = {
        name: action.nargs != 0
        for action in parser._actions
        for name in action.option_strings
        if name.startswith("--")
    }
    takes_value |= dict.fromkeys(FLINK_OPTIONS, True)
    _check_names(arguments, takes_value, [*takes_value, *own])
    _check_values(parser, arguments)
    options = PipelineOptions(list(arguments), runner=_runner(arguments))
    return options


def _check_names(arguments: Sequence[str], takes_value: dict[str, bool], known: list[str]) -> None:
    value_follows = False
    for argument in arguments:
        name, equals, _ = argument.partition("=")
        if name.startswith("--"):
            if name not in takes_value:
                raise AddressError(f"unknown option {name}{did_you_mean(name, known)}")
            value_follows = takes_value[name] and not equals
        elif name.startswith("-") and not value_follows:
            raise AddressError(f"unknown option {name}; options begin with --")
        elif not value_follows:
            raise AddressError(f"unexpected argument {argument!r}; options begin with --")


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
    if name in _LOCAL_NAMES or name == LOCAL_RUNNER:
        return LOCAL_RUNNER
    if name in _LATER:
        raise AddressError(
            f"--runner {name} comes with the deployment to clusters, which is not built yet; "
            f"use {_LOCAL_NAMES[0]}"
        )
    raise AddressError(
        f"unknown runner {name!r}{did_you_mean(name, (*_LOCAL_NAMES, *_LATER))} "
        f"(use {_LOCAL_NAMES[0]})"
    )
