"""`group-scores serve` as a process: it starts, answers, finishes what is in flight, and ends."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from group_scores.api.tokens import HEADER
from tests.api_client import (
    PATH,
    GroupService,
    Said,
    group_answer,
    make_store,
    member,
    put_row,
    token,
    write_jwks,
)
from tests.command_line import succeed
from tests.integration.pipeline_runs import PROGRAM

SAMPLE_COURSE = "do_425145315464864386527"


@dataclass
class Served:
    """A server that listens: where, and what it has said."""

    url: str
    process: subprocess.Popen[str]
    said: list[str]
    folder: Path
    reader: threading.Thread

    def end(self, number: int = signal.SIGTERM) -> tuple[int, str]:
        """Send the signal and return the exit code and all that was said."""
        self.process.send_signal(number)
        code = self.process.wait(20)
        self.reader.join(10)
        return code, "".join(self.said)

    def post(self, group: str, course: str, **headers: str) -> httpx.Response:
        """Ask for the aggregates of a group."""
        body = {"request": {"groupId": group, "activityId": course, "activityType": "Course"}}
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        return httpx.post(self.url + PATH, json=body, headers=sent, timeout=20)


@contextlib.contextmanager
def served(folder: Path, *words: str) -> Iterator[Served]:
    """Run the command on a free port until it says where it serves."""
    command = [PROGRAM, "serve", "--listen", "127.0.0.1:0", *words]
    with subprocess.Popen(
        command, cwd=folder, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    ) as process:
        said: list[str] = []
        reader = None
        try:
            assert process.stderr is not None
            for line in process.stderr:
                said.append(line)
                found = re.search(r"serving on (http://[\d.]+:\d+)", line)
                if found:
                    # Or its log would fill the pipe, and it would wait for a reader.
                    reader = threading.Thread(target=said.extend, args=(process.stderr,))
                    reader.start()
                    yield Served(found[1], process, said, folder, reader)
                    break
            else:
                pytest.fail("".join(said))
        finally:
            process.kill()
            process.wait()
            if reader:
                reader.join()


def test_the_samples_are_served_with_one_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    succeed("run", "--summary", "json")
    with served(tmp_path) as server:
        assert "everybody on this machine may read every group" in "".join(server.said)
        result = server.post("sample", SAMPLE_COURSE).json()["result"]
        assert result["activity"]["agg"][0]["value"] == 7
        assert len(result["members"]) == 8  # one is in two batches
        code, said = server.end()
    assert code == 0
    assert said.splitlines()[-1] == "ended, with every request answered"
    assert "Traceback" not in said


def test_what_is_in_flight_is_finished_at_the_end(tmp_path: Path) -> None:
    store = make_store(tmp_path / "scores.db")
    put_row(store, "u1", agg={"score:a": 1})
    come = threading.Event()

    def say(path: str) -> Said:
        come.set()
        said = group_answer(member("u1"))
        said.wait_s = 1
        return said

    with GroupService(say).serving() as service:
        words = ("--store", store, "--groups", service.url, "--log-format", "json")
        words += ("--jwks", write_jwks(tmp_path / "jwks.json"))
        with served(tmp_path, *words) as server:
            answers: list[httpx.Response] = []
            headers = {HEADER.replace("-", "_"): token(), "x_request_id": "r-1"}
            asking = threading.Thread(
                target=lambda: answers.append(server.post("g1", "do_1", **headers))
            )
            asking.start()
            assert come.wait(10)
            code, said = server.end()
            asking.join(10)
    assert code == 0
    assert answers[0].json()["result"]["members"][0]["userId"] == "u1"
    lines = [json.loads(line) for line in said.splitlines()]
    (line,) = [line for line in lines if line["logger"] == "group_scores.access"]
    assert (line["route"], line["status"], line["request_id"]) == (PATH, 200, "r-1")
    assert "u1" not in said
    assert lines[-1]["message"] == "ended, with every request answered"


def test_ctrl_c_ends_it_and_a_client_that_says_nothing_does_not_keep_it(tmp_path: Path) -> None:
    store = make_store(tmp_path / "scores.db")
    with served(tmp_path, "--store", store, "--groups", "sample") as server:
        host, port = server.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as silent:
            silent.sendall(b"POST /v1/group/activity/agg HTTP/1.1\r\nhost: localhost\r\n")
            time.sleep(0.1)
            begun_s = time.monotonic()
            code, said = server.end(signal.SIGINT)
        assert time.monotonic() - begun_s < 10
    assert code == 0
    assert "Traceback" not in said


def test_a_body_of_100_mb_does_not_stay(tmp_path: Path) -> None:
    store = make_store(tmp_path / "scores.db")
    with served(tmp_path, "--store", store, "--groups", "sample") as server:
        body = (b" " * 1_000_000 for _ in range(100))
        with contextlib.suppress(httpx.WriteError, httpx.ReadError):  # it hangs up on us
            answer = httpx.post(server.url + PATH, content=body, timeout=20)
            assert answer.status_code == 413
        assert httpx.get(server.url + "/health").status_code == 200
        assert server.end()[0] == 0


def test_a_port_that_is_taken_is_one_line(tmp_path: Path) -> None:
    store = make_store(tmp_path / "scores.db")
    with served(tmp_path, "--store", store, "--groups", "sample") as server:
        words = ("--store", store, "--groups", "sample", "--listen")
        done = subprocess.run(
            [PROGRAM, "serve", *words, server.url.removeprefix("http://")],
            capture_output=True,
            text=True,
            timeout=20,
        )
    assert done.returncode == 2
    assert re.fullmatch(r"group-scores: --listen [^\n]+ is the port free[^\n]+\n", done.stderr)
