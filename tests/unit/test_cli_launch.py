"""What is found out before a run starts, and what is said of one that fails."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import apache_beam as beam
import pytest
from apache_beam.options.pipeline_options import PipelineOptions

from group_scores.pipelines import Job, VerifyJob
from group_scores.pipelines.sources import Gives
from group_scores.runners import launch
from group_scores.runners.beam_options import LOCAL_RUNNER
from group_scores.scores import SourceRecord
from group_scores.stores import (
    AddressError,
    ClockSkewError,
    GroupScoresError,
    Selection,
    ServiceUnavailableError,
    Store,
    StoreConfig,
    StoreTransientError,
)
from group_scores.stores.sqlite import SqliteStore
from group_scores.transforms.kafka.errors import MessageTooLargeError
from group_scores.transforms.progress import Progress
from group_scores.transforms.resources import close_shared
from group_scores.transforms.retry import Retry


@dataclass(frozen=True)
class Fake:
    """A source whose check and whose read do as they are told."""

    error: Exception | None = None
    wait_s: float = 0.0
    dead_letter: str = "dead-letter.jsonl"
    gives: Gives = "events"
    taken_us: int | None = None
    selection: Selection = Selection()
    rows_s: float | None = None

    def read(self, retry_s: float, progress: Progress) -> beam.PTransform:
        return beam.Create([0]) | beam.Map(self.fail).with_output_types(SourceRecord)

    def fail(self, _: int) -> SourceRecord:
        assert self.error is not None
        raise self.error

    def reads(self, sink: str) -> bool:
        return False

    def check(self, timeout_s: float) -> int | None:
        time.sleep(self.wait_s)
        if self.error:
            raise self.error
        return 7

    def check_store(self, store: Store) -> None:
        if self.error:
            raise self.error


AWAY = ServiceUnavailableError("it is away")
WRONG = AddressError("it is wrong")


class TestTheTimeOfAVerification:
    """It is asked for in the run itself, where a server that is away is waited for."""

    @pytest.fixture(autouse=True)
    def folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        monkeypatch.chdir(tmp_path)
        yield
        close_shared()

    def job(self, **options: Any) -> VerifyJob:
        retry = Retry(5, longest_pause_s=0)
        source = Fake(gives="attempts", **options)
        return VerifyJob(source, StoreConfig("sqlite:scores.db"), "report.jsonl", retry=retry)

    def test_is_the_sources_where_it_has_one(self) -> None:
        assert self.job(taken_us=17).as_of_us() == 17

    def test_is_asked_for_again(self, monkeypatch: pytest.MonkeyPatch) -> None:
        answers: list[Any] = [StoreTransientError("locked"), StoreTransientError("locked"), 23]

        def now_us(_: SqliteStore) -> int:
            answer = answers.pop(0)
            if isinstance(answer, Exception):
                raise answer
            return int(answer)

        monkeypatch.setattr(SqliteStore, "now_us", now_us)
        assert self.job().as_of_us() == 23

    def test_that_cannot_be_had_fails_the_run_and_leaves_nothing_open(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        closed = []

        def now_us(_: SqliteStore) -> int:
            raise ClockSkewError("this machine's clock is off")

        monkeypatch.setattr(SqliteStore, "now_us", now_us)
        monkeypatch.setattr(SqliteStore, "close", lambda store: closed.append(store))
        job = replace(self.job(), retry=Retry(0))
        with pytest.raises(GroupScoresError, match="clock is off") as failure:
            launch.run_verify(job, PipelineOptions([]))
        assert failure.value.exit_code == 1
        assert len(closed) == 1


class TestCheck:
    @pytest.fixture(autouse=True)
    def folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)

    def job(self, source: Fake, **options: Any) -> Job:
        return Job(source, StoreConfig("sqlite:scores.db"), "dead-letter.jsonl", **options)

    def test_tells_how_many_events_there_are(self) -> None:
        assert launch.check(self.job(Fake())) == 7

    def test_tells_what_is_away(self) -> None:
        with pytest.raises(ServiceUnavailableError, match="it is away"):
            launch.check(self.job(Fake(AWAY)))

    def test_tells_a_wrong_address_before_a_server_that_is_away(self) -> None:
        # The address is found wrong after the server was found away, and is what is told.
        with pytest.raises(AddressError, match="it is wrong"):
            launch.check(self.job(Fake(WRONG, 0.5), content_index="redis://127.0.0.1:1"))
        with pytest.raises(AddressError, match="cannot be written"):
            launch.check(self.job(Fake(AWAY), cert_events="/proc/x.jsonl"))

    def test_leaves_no_store_open(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """The next run of this process, in another folder, has a store of its own there."""
        with pytest.raises(ServiceUnavailableError):
            launch.check(self.job(Fake(AWAY, 0.5)))
        (tmp_path / "next").mkdir()
        monkeypatch.chdir(tmp_path / "next")
        launch.check(self.job(Fake()))
        assert (tmp_path / "next" / "scores.db").exists()

    def test_tells_a_wrong_address_without_waiting_for_the_rest(self) -> None:
        start = time.monotonic()
        with pytest.raises(AddressError, match="cannot be written"):
            launch.check(self.job(Fake(AWAY, 5.0), cert_events="/proc/x.jsonl"))
        assert time.monotonic() - start < 3

    def test_does_not_wait_for_what_never_answers(self) -> None:
        start = time.monotonic()
        with pytest.raises(ServiceUnavailableError, match="no answer about --source in time"):
            launch.check(self.job(Fake(wait_s=30.0)), timeout_s=0.5)
        assert time.monotonic() - start < 3
        waiting = [one for one in threading.enumerate() if one.name == "check --source"]
        assert all(one.daemon for one in waiting)  # the end of the program does not wait either

    def test_leaves_time_to_start_python(self) -> None:
        assert launch.CHECK_S <= 12


class TestFailure:
    def failure(self, error: Exception, *words: str) -> GroupScoresError:
        job = Job(Fake(error), StoreConfig("sqlite:scores.db"), "dead-letter.jsonl")
        options = PipelineOptions(list(words), runner=LOCAL_RUNNER)
        with pytest.raises(GroupScoresError) as caught:
            launch.run(job, options)
        return caught.value

    @pytest.mark.parametrize("words", [(), ("--direct_running_mode", "multi_threading")])
    @pytest.mark.parametrize(
        ("error", "said", "code"),
        [
            (AWAY, "it is away (in ReadEvents)", 1),
            (WRONG, "it is wrong (in ReadEvents)", 2),
            (MessageTooLargeError("it is large", limit=5), "it is large (in ReadEvents)", 1),
        ],
    )
    def test_of_ours_is_its_own_line_and_the_stage(
        self, words: tuple[str, ...], error: Exception, said: str, code: int
    ) -> None:
        failure = self.failure(error, *words)
        assert (str(failure), failure.exit_code) == (said, code)

    @pytest.mark.parametrize("mode", ["in_memory", "multi_threading"])
    def test_prints_nothing(self, mode: str, capsys: pytest.CaptureFixture[str]) -> None:
        self.failure(AWAY, "--direct_running_mode", mode)
        assert capsys.readouterr() == ("", "")

    def test_of_something_else_is_named(self) -> None:
        failure = self.failure(KeyError("no such"))
        assert failure.exit_code == 1
        assert str(failure).startswith("the run failed: ")
        assert "no such" in str(failure)
        assert str(failure).endswith("--debug shows where")

    def test_leaves_no_progress_files(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
        self.failure(AWAY)
        assert list(tmp_path.iterdir()) == []


def test_a_text_with_a_traceback_gives_its_last_error_of_ours() -> None:
    text = (
        "Traceback (most recent call last):\n  File x\n"
        "group_scores.stores.errors.StoreTransientError: first\n\nDuring handling\n"
        "group_scores.stores.errors.AddressError: ca=x cannot be read: gone "
        "[while running 'WriteAttempt/Write/ParDo(_WriteFn)-ptransform-12']\n\n"
    )
    found = launch._cause(RuntimeError(text))
    assert (str(found), found.exit_code) == ("ca=x cannot be read: gone (in WriteAttempt)", 2)
