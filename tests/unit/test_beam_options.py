"""Options of Beam and of the Flink runner, told from what is misspelt."""

from __future__ import annotations

import logging
import shlex
import sys

import pytest
from apache_beam.options.pipeline_options import (
    DebugOptions,
    DirectOptions,
    PipelineOptions,
    StandardOptions,
)

from group_scores.runners.beam_options import (
    FLINK_OPTIONS,
    FLINK_RUNNER,
    LOCAL_RUNNER,
    pipeline_options,
    quiet_threads,
    runner_of,
)
from group_scores.runners.logs import set_up_logging
from group_scores.stores import AddressError
from tests.command_line import logging_kept


def options(*words: str) -> PipelineOptions:
    return pipeline_options(words, ["--source"])


def test_are_handed_on() -> None:
    direct = options("--direct_num_workers", "3", "--direct_running_mode=multi_threading")
    assert direct.view_as(DirectOptions).direct_num_workers == 3
    assert direct.view_as(DirectOptions).direct_running_mode == "multi_threading"
    assert options("--streaming").view_as(StandardOptions).streaming is True


def test_that_add_up_may_be_given_twice() -> None:
    both = options("--experiments", "a", "--experiments=b").view_as(DebugOptions).experiments
    assert {"a", "b"} <= set(both)


def test_of_the_flink_runner_may_be_without_a_value() -> None:
    options("--object_reuse", "--streaming")


@pytest.mark.parametrize("words", [(), ("--runner", "DirectRunner"), ("--runner=fnapirunner",)])
def test_a_local_run_has_a_runner_that_needs_no_download(words: tuple[str, ...]) -> None:
    assert options(*words).view_as(StandardOptions).runner == LOCAL_RUNNER


@pytest.mark.parametrize("name", sorted(FLINK_OPTIONS))
def test_of_the_flink_runner_are_known_by_name(name: str) -> None:
    for words in ((name, "5"), (f"{name}=5", "--flink_master", "[local]")):
        options(*words)


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (("--object_reus",), "did you mean '--object_reuse'?"),
        (("--sourc", "x"), "unknown option --sourc; did you mean '--source'?"),
        (("--paralelism", "2"), "did you mean '--parallelism'?"),
        (("--streaming", "yes"), "unexpected 'yes'"),
        (("--direct_num_workers", "1", "2"), "unexpected '2'"),
        (("--direct_num_workers", "1.5"), "--direct_num_workers: invalid int value: '1.5'"),
        (("--parallelism", "2", "--parallelism", "3"), "--parallelism is given twice"),
        (("--job_name=",), "--job_name has no value"),
        (("-job_name", "x"), "unexpected '-job_name'"),
        (("--runner", "PrismRunner"), "unknown runner 'PrismRunner'"),
        (("--runner", "SparkRunner"), "not built yet; use DirectRunner"),
    ],
)
def test_what_is_wrong_is_named(words: tuple[str, ...], what: str) -> None:
    with pytest.raises(AddressError) as error:
        options(*words)
    assert what in str(error.value)


@pytest.mark.parametrize(
    ("made", "quiet"),
    [
        (options("--direct_running_mode", "multi_threading"), True),
        (PipelineOptions(runner=FLINK_RUNNER), True),
        (options(), False),
    ],
)
def test_what_beam_prints_of_a_worker_thread_is_kept_off(
    made: PipelineOptions, quiet: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    with quiet_threads(made):
        print("Traceback", file=sys.stderr)
    assert capsys.readouterr().err == ("" if quiet else "Traceback\n")


class TestSeveralProcesses:
    WORDS = ("--direct_running_mode", "multi_processing", "--direct_num_workers", "2")

    def command(self) -> list[str]:
        runner = runner_of(options(*self.WORDS))
        assert runner is not None
        return shlex.split(runner._default_environment.command_string)

    def test_run_our_worker_even_from_a_path_with_a_blank(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sys, "executable", "/my tools/python")
        assert self.command() == [
            *("exec", "/my tools/python", "-P", "-m", "group_scores.runners.worker")
        ]

    def test_say_all_with_debug(self, caplog: pytest.LogCaptureFixture) -> None:
        with caplog.at_level(logging.INFO, "group_scores"):
            assert self.command()[-1] == "--debug"

    def test_log_as_their_launcher_does(self) -> None:
        with logging_kept():
            set_up_logging(debug=False, log_format="json")
            assert self.command()[-1] == "--log-format=json"

    def test_keep_their_number(self) -> None:
        made = options(*self.WORDS)
        runner_of(made)
        direct = made.view_as(DirectOptions)
        # Beam would put its own worker in the place of ours if it saw the mode.
        assert (direct.direct_num_workers, direct.direct_running_mode) == (2, "")

    def test_are_asked_for(self) -> None:
        assert runner_of(options()) is None
        assert runner_of(options("--direct_running_mode", "multi_threading")) is None
