"""The script that stops a cluster's job before it is launched again."""

from __future__ import annotations

import importlib.util
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[2] / "runners/flink/deploy/stop_job.py"
_spec = importlib.util.spec_from_file_location("stop_job", SCRIPT)
assert _spec is not None
assert _spec.loader is not None
stop_job = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(stop_job)


class Flink:
    """A job manager's REST interface, as far as it is needed."""

    def __init__(self) -> None:
        self.jobs = [{"jid": "old", "name": "group-scores", "state": "FAILED"}]
        self.orders: list[Any] = []
        self.looks = 0
        self.operation: dict[str, Any] = {"location": "s3://bucket/savepoint-1"}
        self.refuses = False
        self.slots = iter((0, 1, 2))

    def run(self, name: str = "group-scores") -> None:
        self.jobs.append({"jid": "a1", "name": name, "state": "RUNNING"})

    def answer(self, method: str, path: str, body: Any) -> Any:
        if (method, path) == ("GET", "/jobs/overview"):
            return {"jobs": self.jobs}
        if (method, path) == ("GET", "/overview"):
            return {"slots-available": next(self.slots)}
        if (method, path) == ("POST", "/jobs/a1/stop"):
            if self.refuses:
                return None
            self.orders.append(body)
            return {"request-id": "t1"}
        if (method, path) == ("GET", "/jobs/a1/savepoints/t1"):
            self.looks += 1
            if self.looks < 2:
                return {"status": {"id": "IN_PROGRESS"}, "operation": None}
            return {"status": {"id": "COMPLETED"}, "operation": self.operation}
        if (method, path) == ("PATCH", "/jobs/a1?mode=cancel"):
            self.orders.append("cancel")
            self.jobs[-1]["state"] = "CANCELED"
            return {}
        return None


@pytest.fixture
def flink(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Flink, str]]:
    monkeypatch.setattr(stop_job, "_EVERY_S", 0.01)
    cluster = Flink()

    class Handler(BaseHTTPRequestHandler):
        def do(self) -> None:
            text = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            answer = cluster.answer(self.command, self.path, json.loads(text or b"null"))
            self.send_response(500 if answer is None else 200)
            self.end_headers()
            self.wfile.write(json.dumps(answer).encode())

        do_GET = do_POST = do_PATCH = do

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield cluster, f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def test_it_stops_the_job_and_tells_the_savepoint(
    flink: tuple[Flink, str], capsys: pytest.CaptureFixture[str]
) -> None:
    cluster, address = flink
    cluster.run()
    assert stop_job.main([address, "--savepoints", "s3://bucket"]) == 0
    assert capsys.readouterr().out == "s3://bucket/savepoint-1\n"
    assert cluster.orders == [{"drain": False, "targetDirectory": "s3://bucket"}]


def test_no_such_job_is_no_failure(flink: tuple[Flink, str]) -> None:
    cluster, address = flink
    cluster.run("another")
    assert stop_job.main([address]) == 0
    assert cluster.orders == []


@pytest.mark.parametrize("how", ["refused", "failed"])
def test_without_a_savepoint_it_is_cancelled_only_if_asked(
    flink: tuple[Flink, str], capsys: pytest.CaptureFixture[str], how: str
) -> None:
    cluster, address = flink
    cluster.run()
    cluster.refuses = how == "refused"
    cluster.operation = {"failure-cause": {"class": "org.example.Broken"}}
    assert stop_job.main([address]) == 1
    assert "cancel" not in cluster.orders
    assert ("500 to POST" if cluster.refuses else "org.example.Broken") in capsys.readouterr().err
    assert stop_job.main([address, "--or-cancel"]) == 0
    assert cluster.orders[-1] == "cancel"


def test_it_waits_for_slots_where_that_is_asked_for(flink: tuple[Flink, str]) -> None:
    cluster, address = flink
    assert stop_job.main([address, "--slots", "2"]) == 0
    assert next(cluster.slots, None) is None


def test_it_says_in_one_line_that_nobody_answers(capsys: pytest.CaptureFixture[str]) -> None:
    assert stop_job.main(["127.0.0.1:1", "--wait-s", "0"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("stop-job: 127.0.0.1:1: no answer within 0 s")
