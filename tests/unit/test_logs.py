"""Log lines: one each, as text or as JSON, with nothing in them that is secret."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import re
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from group_scores.runners import screen
from group_scores.runners.logs import (
    FORMATS,
    JsonLines,
    format_in,
    last_line,
    log_format,
    set_up_logging,
)
from group_scores.stores.sqlite import SqliteStore
from tests.command_line import invoke, logging_kept, refused

TEXT_LINE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} [A-Z]+ [\w.]+: .*")
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
NASTY = 'a\nb\r\n\x1b[2J\u2028\x85\udcff"{é}'
RUN = ("run", "--source", "events.jsonl", "--store", "sqlite:scores.db")
log = logging.getLogger("group_scores.test")


class Err(io.StringIO):
    """What is printed on standard error from `set_up` on."""

    def set_up(self, debug: bool, log_format: str = "text") -> None:
        sys.stderr = self
        set_up_logging(debug, log_format)


@pytest.fixture
def err(monkeypatch: pytest.MonkeyPatch) -> Iterator[Err]:
    monkeypatch.setattr(sys, "stderr", sys.stderr)
    with logging_kept():
        yield Err()


def objects(err: io.StringIO) -> list[dict[str, str]]:
    """Return the lines, each of which has to be an object, and forget them."""
    found = [json.loads(line) for line in err.getvalue().splitlines()]
    err.truncate(err.seek(0))
    for one in found:
        assert TIME.fullmatch(one["time"])
        assert {"time", "level", "logger", "message"} <= set(one)
        assert set(one) <= {"time", "level", "logger", "message", "error"}
    return found


def boom(text: str) -> None:
    try:
        raise ValueError(text)
    except ValueError:
        log.exception("it broke")


@given(st.text())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_of_any_message_is_one_line(err: Err, message: str) -> None:
    for one in FORMATS:
        err.truncate(err.seek(0))
        err.set_up(debug=True, log_format=one)
        log.info("it said %s", message)
        boom(message)
        first, second = err.getvalue().splitlines()
        if one == "json":
            assert "ValueError" in json.loads(second)["error"]
        else:
            assert TEXT_LINE.fullmatch(first)
            assert first.isprintable()
            assert "ValueError" in second


def test_json_says_when_who_what_and_why(err: Err) -> None:
    err.set_up(debug=False, log_format="json")
    log.warning("it said %s", NASTY)
    boom("because")
    said, broke = objects(err)
    assert (said["level"], said["logger"]) == ("WARNING", "group_scores.test")
    assert said["message"] == f"it said {NASTY}"
    assert "error" not in said
    assert broke["message"] == "it broke"
    assert broke["error"].startswith("Traceback (most recent call last):\n")
    assert broke["error"].endswith("ValueError: because")


def test_a_person_at_a_terminal_sees_the_lines_of_a_traceback(
    err: Err, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(err, "isatty", lambda: True)
    err.set_up(debug=False)
    boom("x\x1b[2J")
    lines = err.getvalue().splitlines()
    assert TEXT_LINE.fullmatch(lines[0])
    assert lines[1].startswith("Traceback")
    assert lines[-1] == r"ValueError: x\x1b[2J"


@pytest.mark.parametrize("one", FORMATS)
@pytest.mark.parametrize(
    "text",
    [
        "no kafka://me:s3cret@host/t",
        "?ssl_password=s3cret&x",
        "{'sasl_plain_password': 's3cret', 'x': 1}",
        "{'password': b's3cret'}",
        "Config(password='s3cret')",
        "AUTH_TOKEN=s3cret",
    ],
)
def test_credentials_are_not_shown(one: str, text: str, err: Err) -> None:
    err.set_up(debug=True, log_format=one)
    log.warning(text)
    boom(text)
    assert "…" in err.getvalue() or r"\u2026" in err.getvalue()
    assert "s3cret" not in err.getvalue()


@pytest.mark.parametrize("one", FORMATS)
def test_the_last_line_comes_while_the_words_of_others_are_kept_off(one: str, err: Err) -> None:
    """As after Ctrl-C in a run with several threads, which goes on behind it."""
    err.set_up(debug=False, log_format=one)
    with contextlib.redirect_stderr(io.StringIO()):
        last_line("group-scores: interrupted", None, one)
    assert "interrupted" in err.getvalue()


class TestJson:
    """All that is printed on standard error is objects, whoever prints it."""

    def test_lines_of_others(self, err: Err) -> None:
        err.set_up(debug=True, log_format="json")
        print("one\n\ntwo", file=sys.stderr)
        print("thr", end="", file=sys.stderr)
        print("ee", file=sys.stderr)
        assert [one["message"] for one in objects(err)] == ["one", "two", "three"]

    def test_what_a_person_would_be_told(self, err: Err) -> None:
        err.set_up(debug=True, log_format="json")
        screen.tell(screen.summary_table({"events": 2_000, "dead_letters": 1}, "x.jsonl"))
        screen.tell("2 rows\ndid not take")
        first, second = objects(err)
        assert first["message"] == "events 2,000, dead letters 1 in x.jsonl"
        assert second["message"] == "2 rows, did not take"

    def test_warnings_of_python(self, err: Err) -> None:
        err.set_up(debug=True, log_format="json")
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            logging.captureWarnings(False)
            logging.captureWarnings(True)
            warnings.warn("old", UserWarning, stacklevel=1)
        (one,) = objects(err)
        assert one["logger"] == "py.warnings"

    def test_once_for_each(self, err: Err) -> None:
        err.set_up(debug=True, log_format="json")
        set_up_logging(debug=True, log_format="json")
        assert isinstance(sys.stderr, JsonLines)
        assert sys.stderr.out is err
        log.info("once")
        assert len(objects(err)) == 1

    def test_is_over_with_the_text(self, err: Err) -> None:
        err.set_up(debug=True, log_format="json")
        assert log_format() == "json"
        set_up_logging(debug=True)
        assert log_format() == "text"
        assert sys.stderr is err


@pytest.mark.parametrize("name", ["kafka", "cassandra", "apache_beam", "redis"])
def test_no_library_prints_what_it_sends(name: str, err: Err) -> None:
    """At DEBUG the Kafka client would: whole events, and its logins."""
    err.set_up(debug=True)
    logging.getLogger().setLevel(logging.DEBUG)  # as an option of Beam can
    assert not logging.getLogger(f"{name}.part").isEnabledFor(logging.DEBUG)


@pytest.mark.parametrize("debug", [False, True])
def test_what_a_job_server_says_of_a_failure_is_for_debug_alone(debug: bool, err: Err) -> None:
    err.set_up(debug)
    file = "apache_beam/runners/portability/portable_runner.py"
    said = logging.LogRecord("root", logging.ERROR, file, 1, "java.lang.Error", None, None)
    logging.getLogger().handle(said)
    assert bool(err.getvalue()) is debug


class TestCommand:
    @pytest.fixture(autouse=True)
    def folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        (tmp_path / "events.jsonl").write_text("{}\n")

    def one(self, *words: str, code: int) -> dict[str, str]:
        done = invoke(*words, "--log-format", "json")
        assert (done.code, done.out) == (code, "")
        (one,) = objects(io.StringIO(done.err))
        assert one["level"] == "ERROR"
        return one

    def test_ends_with_one_object(self) -> None:
        one = self.one(*RUN, "--dead-letter", "no/x.jsonl", code=2)
        assert one["message"].startswith("no/x.jsonl: the folder ")
        assert "error" not in one

    def test_says_so_of_options_too(self) -> None:
        assert "--tabel" in self.one("dump", "--tabel", "x", code=2)["message"]
        assert "runn" in self.one("runn", code=2)["message"]

    def test_shows_the_traceback_in_it(self) -> None:
        done = invoke(*RUN, "--dead-letter", "no/x.jsonl", "--debug", "--log-format=json")
        last = objects(io.StringIO(done.err))[-1]
        assert last["message"].startswith("no/x.jsonl: the folder ")
        assert last["error"].startswith("Traceback")
        assert "AddressError" in last["error"]

    def test_shows_the_traceback_of_text_in_one_line(self) -> None:
        done = invoke(*RUN, "--dead-letter", "no/x.jsonl", "--debug")
        *logged, last = done.err.splitlines()
        assert last == refused(*RUN, "--dead-letter", "no/x.jsonl")
        assert all(map(TEXT_LINE.fullmatch, logged))
        assert r"Traceback (most recent call last):\n" in logged[-1]

    def test_is_refused_with_the_nearest_names(self) -> None:
        assert "'xml' is not one of 'text', 'json'" in refused(*RUN, "--log-format", "xml")

    def test_holds_no_data_of_a_failure(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(*_: object) -> None:
            raise RuntimeError("password=s3cret")

        monkeypatch.setattr(SqliteStore, "scan", fail)
        (Path("scores.db")).touch()
        words = ("dump", "--store", "sqlite:scores.db", "--table", "attempts", "--debug")
        for one in FORMATS:
            done = invoke(*words, "--log-format", one)
            assert done.code == 1
            assert "unexpected RuntimeError" in done.err
            assert "s3cret" not in done.err


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("run --log-format json", "json"),
        ("run --log-format=json --debug", "json"),
        ("run --log-format", "text"),
        ("run --log-format text json", "text"),
        ("run --log-format xml", "text"),
    ],
)
def test_the_format_is_known_before_the_options_are(words: str, found: str) -> None:
    assert format_in(words.split()) == found
