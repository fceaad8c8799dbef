"""The installed command as a process: how it ends, what it leaves, and what a terminal shows."""

from __future__ import annotations

import contextlib
import fcntl
import gzip
import json
import os
import pty
import re
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from cryptography.hazmat.primitives import serialization

from group_scores.pipelines import Job
from group_scores.pipelines.sources import FileSource
from group_scores.runners import launch
from group_scores.runners.beam_options import pipeline_options
from group_scores.stores import StoreConfig
from group_scores.transforms.progress import Progress
from tests.command_line import succeed
from tests.integration.pipeline_runs import (
    PROGRAM,
    Tables,
    assert_holds_nothing_of,
    differences,
)
from tests.servers.tls import make_tls

TWO_WORKERS = ("--direct_running_mode", "multi_processing", "--direct_num_workers", "2")
RUN = (PROGRAM, "run", "--source", "events.jsonl", "--store", "sqlite:scores.db")
ONE_LINE = r"group-scores: [^\n]+\n"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "temporary").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return tmp_path


def simulate(events: int, to: str = "events.jsonl") -> list[bytes]:
    words = ("--events", str(events), "--seed", "41", "--invalid", "0.05", "--to", to)
    succeed("simulate", *words)
    return Path(to).read_bytes().splitlines()


def shell(command: str) -> tuple[int, str, str]:
    """Run a line of the shell, with `$GS` for the command; return its code and what it printed."""
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command],
        env=os.environ | {"GS": PROGRAM},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


class TestInterrupted:
    @contextlib.contextmanager
    def running(self, *words: str) -> Iterator[subprocess.Popen[str]]:
        """A run on 4,000 events that has come to reading them."""
        with subprocess.Popen(
            [*RUN, *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            # A shell without job control has its background jobs ignore Ctrl-C.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        ) as process:
            try:
                wait_for(lambda: any(Path("temporary").rglob("[0-9]*")))
                yield process
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)

    @pytest.mark.parametrize("words", [(), TWO_WORKERS], ids=["one process", "two workers"])
    @pytest.mark.parametrize(
        ("number", "said"), [(signal.SIGINT, "interrupted"), (signal.SIGTERM, "terminated")]
    )
    def test_it_ends_at_once_with_a_line_and_the_next_run_goes_on(
        self, words: tuple[str, ...], number: signal.Signals, said: str
    ) -> None:
        events = simulate(4_000)
        with self.running(*words) as process:
            workers = psutil.Process(process.pid).children(recursive=True)
            assert len(workers) == (2 if words else 0)
            start = time.monotonic()
            if number == signal.SIGINT:
                os.killpg(process.pid, number)  # as a terminal does
            else:
                process.send_signal(number)
            out, err = process.communicate(timeout=20)
            assert time.monotonic() - start < 5
        assert (process.returncode, out) == (128 + number, "")
        assert re.fullmatch(rf"group-scores: {said}; run it again: [^\n]+ nothing is lost\n", err)
        assert not psutil.wait_procs(workers, timeout=5)[1]
        assert not any(Path("temporary").rglob("[0-9]*"))
        if number == signal.SIGINT:
            code, out, err = shell("$GS run --source events.jsonl --store sqlite:scores.db")
            assert code == 0, err
            assert differences(Tables.read("sqlite:scores.db"), events) == []

    def test_workers_end_with_a_launcher_that_was_killed(self) -> None:
        simulate(4_000)
        with self.running(*TWO_WORKERS) as process:
            workers = psutil.Process(process.pid).children(recursive=True)
            process.kill()
            process.wait(5)
            assert not psutil.wait_procs(workers, timeout=5)[1]
            assert process.stderr is not None
            assert process.stderr.read() == ""

    def test_a_simulation_says_nothing_of_a_next_run(self) -> None:
        words = ("--events", "1000000", "--seed", "1", "--to", "many.jsonl")
        with subprocess.Popen(
            [PROGRAM, "simulate", *words], stderr=subprocess.PIPE, text=True
        ) as process:
            wait_for(lambda: Path("many.jsonl").exists() and Path("many.jsonl").stat().st_size > 0)
            process.send_signal(signal.SIGTERM)
            _, err = process.communicate(timeout=20)
        assert (process.returncode, err) == (143, "group-scores: terminated\n")


def wait_for(condition: Callable[[], bool], timeout_s: float = 60.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


class TestStreams:
    @pytest.fixture(autouse=True)
    def scores(self, folder: Path) -> None:
        simulate(200)
        succeed("run", "--source", "events.jsonl", "--store", "sqlite:scores.db")

    @pytest.mark.parametrize(
        "command",
        [
            "$GS dump --store sqlite:scores.db --table attempts",
            "$GS simulate --events 100000 --seed 1 --to -",
            "cat events.jsonl | $GS run --source - --store sqlite:other.db --summary json",
        ],
    )
    def test_may_be_read_as_far_as_one_likes(self, command: str) -> None:
        code, out, err = shell(f"{command} | head -1")
        assert (code, len(out.splitlines())) == (0, 1)
        json.loads(out)
        assert "Error" not in err

    @pytest.mark.parametrize(
        ("command", "code"),
        [
            ("dump --store sqlite:scores.db --table attempts >&-", 1),
            ("dump --store sqlite:scores.db --table attempts >/dev/full", 1),
            ("simulate --events 9 --seed 1 --to - >&-", 2),
            ("simulate --events 9 --seed 1 --to - >/dev/full", 1),
            ("run --source events.jsonl --store sqlite:other.db --summary json >/dev/full", 1),
            ("run --source - --store sqlite:other.db <&-", 2),
        ],
    )
    def test_that_cannot_be_used_are_told_in_a_line(self, command: str, code: int) -> None:
        found, out, err = shell(f"$GS {command}")
        assert (found, out) == (code, "")
        assert re.fullmatch(ONE_LINE, err), err
        assert "standard " in err

    def test_that_are_closed_and_not_needed_stop_nothing(self) -> None:
        run = "$GS run --source events.jsonl --store sqlite:other.db"
        assert shell(f"{run} <&- >&- 2>&-") == (0, "", "")
        assert shell(f"{run} --store-retry-s -1 2>&-") == (2, "", "")
        # No file of ours has got the number of a stream that others write to.
        assert Tables.read("sqlite:other.db").attempts == Tables.read("sqlite:other.db").attempts
        assert (
            differences(
                Tables.read("sqlite:other.db"), Path("events.jsonl").read_bytes().splitlines()
            )
            == []
        )

    def test_have_plain_text_where_nobody_looks(self) -> None:
        code, out, err = shell("$GS run")
        assert code == 0
        assert "\x1b" not in out + err
        assert "Learner" in out


@pytest.mark.parametrize(
    ("log_format", "mode"), [("json", "multi_processing"), ("text", "multi_threading")]
)
def test_a_run_that_fails_logs_lines_alone_and_nothing_of_anybody(
    log_format: str, mode: str
) -> None:
    """Whatever Beam's workers have to say of it, in processes and threads of their own."""
    events = simulate(300)
    os.symlink("/dev/full", "full.jsonl")
    words = ("--direct_running_mode", mode, *TWO_WORKERS[2:])
    options = "--store-retry-s 0 --dead-letter full.jsonl --debug --log-format"
    code, out, err = shell(f"{' '.join(RUN)} {' '.join(words)} {options} {log_format}")
    assert (code, out) == (1, "")
    *lines, last = err.splitlines()
    if log_format == "json":
        lines = [json.loads(line)["message"] for line in lines]
        last = f"group-scores: {json.loads(last)['message']}"
    else:
        assert all(re.match(r"\d{4}-\d\d-\d\d [\d:,]+ [A-Z]+ [\w.]+: ", line) for line in lines)
    assert "full.jsonl cannot be written: No space left on device" in last
    assert any("Traceback" in line for line in lines)
    assert_holds_nothing_of(events, err)


class TestTerminal:
    def look(self, columns: int, *words: str, code: int = 0) -> str:
        """Run the command on a terminal of its own and return all that it printed there."""
        child, terminal = pty.fork()
        if child == 0:
            fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
            # Python's own variables: its readline has put the size of another terminal beside them.
            os.execve(PROGRAM, [PROGRAM, *words], os.environ)
        shown = b""
        with contextlib.suppress(OSError):  # the terminal is gone when the command is
            while data := os.read(terminal, 4096):
                shown += data
        os.close(terminal)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == code
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode())

    def test_shows_how_far_a_run_is(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("TERM", "xterm-256color")
        simulate(5_000)
        words = ("run", "--source", "events.jsonl", "--store", "sqlite:scores.db")
        shown = self.look(80, *words)
        line = re.compile(r"events .* (\d+)/5000 +([\d,]+)/s (\d:\d\d:\d\d) (\d:\d\d:\d\d)")
        found = line.findall(shown)
        assert found, shown[-2000:]
        counts = [int(count) for count, *_ in found]
        assert counts == sorted(counts)
        assert 0 < counts[0] <= 5_000
        assert re.search(r"events +5,000", shown)

    @pytest.mark.parametrize("scheme", ["kafka", "cassandra"])
    def test_is_not_asked_for_the_password_of_a_key(self, scheme: str, tmp_path: Path) -> None:
        tls = make_tls(tmp_path / "tls")
        key = serialization.load_pem_private_key(tls.key.read_bytes(), None)
        secret = serialization.BestAvailableEncryption(b"of the key")
        pem, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
        tls.key.write_bytes(key.private_bytes(pem, form, secret))
        simulate(1)
        with socket.create_server(("127.0.0.1", 0)) as server:
            place = f"{scheme}://127.0.0.1:{server.getsockname()[1]}/place"
            address = f"{place}?ca={tls.ca}&cert={tls.cert}&key={tls.key}"
            given = {"kafka": ("events.jsonl", "sqlite:scores.db", address)}
            source, store, letters = given.get(scheme, ("events.jsonl", address, "letters.jsonl"))
            words = ("run", "--source", source, "--store", store, "--dead-letter", letters)
            shown = self.look(200, *words, code=2)
        assert "pass phrase" not in shown
        assert re.search("key has no password|the key without a password", shown)

    @pytest.mark.parametrize("columns", [80, 120])
    def test_has_a_table_that_fits(self, columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("TERM", "xterm-256color")
        monkeypatch.delenv("COLUMNS", raising=False)  # that of the tests' own terminal
        shown = self.look(columns, "run")
        rows = [line.rstrip() for line in shown.splitlines() if " do_" in line[30:]]
        assert 10 <= len(rows) <= 25
        assert max(map(len, rows)) <= columns
        assert ("Updated (UTC)" in shown) == (columns == 120)
        assert len({len(row) for row in rows}) == 1  # nothing is folded


class TestSeveralProcesses:
    def test_say_no_more_than_one(self) -> None:
        events = simulate(600)
        code, out, err = shell(" ".join(["exec", *RUN, *TWO_WORKERS, "--summary json"]))
        assert (code, err) == (0, "")
        assert json.loads(out)["events"] == 600
        assert differences(Tables.read("sqlite:scores.db"), events) == []

    def test_say_one_line_where_they_fail(self) -> None:
        lines = b"\n".join(simulate(600))
        Path("cut.jsonl.gz").write_bytes(gzip.compress(lines)[:-9])
        # As for a file that is too large to be looked through before the run.
        hurry = "import group_scores.pipelines.sources as s; s._COUNTED_PACKED_BYTES = 0; "
        program = f"{hurry}from group_scores.runners.cli import main; main()"
        words = ("run", "--source", "cut.jsonl.gz", "--store", "sqlite:scores.db", *TWO_WORKERS)
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", program, *words],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 2
        assert re.search(ONE_LINE + r"\Z", done.stderr)
        assert "is cut off" in done.stderr
        assert "Traceback" not in done.stderr

    def test_add_up_to_one_progress(self) -> None:
        simulate(900, "a.jsonl")
        simulate(600, "b.jsonl")
        seen: list[int] = []

        @contextlib.contextmanager
        def watch(progress: Progress) -> Iterator[None]:
            yield
            files = [path.name for path in Path("temporary").rglob("[0-9]*")]
            assert len(files) == 2
            assert str(os.getpid()) not in files
            seen.append(progress.read())

        job = Job(FileSource("?.jsonl"), StoreConfig("sqlite:scores.db"), "refused.jsonl")
        launch.run(job, pipeline_options(TWO_WORKERS, ()), watch)
        assert seen == [1_500]


class TestStart:
    @pytest.fixture
    def silent(self) -> Iterator[str]:
        """`HOST:PORT` of what answers nobody, not even that it is there."""
        with contextlib.ExitStack() as stack:
            listener = stack.enter_context(socket.socket())
            listener.bind(("127.0.0.1", 0))
            listener.listen(0)
            for _ in range(3):  # as many as it has room for; the kernel drops the next
                other = stack.enter_context(socket.socket())
                other.setblocking(False)
                other.connect_ex(listener.getsockname())
            yield "{}:{}".format(*listener.getsockname())

    @pytest.fixture
    def mute(self) -> Iterator[str]:
        """`HOST:PORT` of what takes connections and says nothing."""
        with socket.create_server(("127.0.0.1", 0), backlog=50) as listener:
            yield "{}:{}".format(*listener.getsockname())

    @pytest.mark.parametrize("kind", ["silent", "mute"])
    def test_tells_within_15_s_what_does_not_answer(
        self, kind: str, request: pytest.FixtureRequest
    ) -> None:
        server = request.getfixturevalue(kind)
        address = {
            "--source": f"kafka://{server}/events",
            "--store": f"cassandra://{server}/ks",
            "--dead-letter": f"kafka://{server}/failed",
            "--content-index": f"redis://{server}/0",
        }
        start = time.monotonic()
        code, out, err = shell(f"$GS run {' '.join(f'{k} {v}' for k, v in address.items())}")
        assert time.monotonic() - start < 15
        assert (code, out) == (1, "")
        assert re.fullmatch(ONE_LINE, err), err
        assert server in err
