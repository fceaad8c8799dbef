"""What is asked of a cluster before a run, and the pool that starts its workers."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import grpc
import psutil
import pytest
from apache_beam.portability.api import beam_fn_api_pb2, beam_fn_api_pb2_grpc, endpoints_pb2

from group_scores.runners.flink.cluster import Cluster
from group_scores.runners.flink.worker_pool import serving
from group_scores.stores.errors import AddressError, ServiceUnavailableError
from tests.servers.process import free_port

FLINK = {
    "/overview": {"flink-version": "1.19.3", "slots-total": 4, "slots-available": 2},
    "/jobs/overview": {
        "jobs": [
            {"jid": "a1", "name": "group-scores", "state": "FINISHED"},
            {"jid": "b2", "name": "other", "state": "RESTARTING"},
        ]
    },
    "/taskmanagers": {"taskmanagers": [{"slotsNumber": 2}, {"slotsNumber": 3}]},
    "/jobmanager/environment": {"classpath": ["/x/beam-runners-flink-1.19-2.70.0.jar"]},
    "/jobmanager/config": [{"key": "jobmanager.scheduler", "value": "default"}],
}


@contextmanager
def answering(answers: dict[str, Any]) -> Iterator[Cluster]:
    """A server with these answers; one that is no JSON is given as bytes."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = answers.get(self.path)
            body = found if isinstance(found, bytes) else json.dumps(found).encode()
            self.send_response(404 if found is None else 200)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield Cluster(f"http://127.0.0.1:{server.server_port}", timeout_s=3)
    finally:
        server.shutdown()
        server.server_close()


def test_a_cluster_with_room_is_taken() -> None:
    with answering(FLINK) as cluster:
        cluster.check(2, "group-scores")
        assert cluster.slots_a_task_manager() == 3
        assert cluster.has_beam()
        assert [job.id for job in cluster.jobs()] == ["b2"]


@pytest.mark.parametrize(
    ("changed", "parallelism", "job", "what"),
    [
        ({}, 3, "x", "has 2 free of 4 slots"),
        ({}, 1, "other", "a job named other is restarting at"),
        ({"/overview": {"flink-version": "1.18.1"}}, 1, "x", "that is Flink 1.18.1"),
        ({"/overview": {}}, 1, "x", "Flink of no version"),
    ],
)
def test_one_that_cannot_take_the_job_is_told(
    changed: dict[str, Any], parallelism: int, job: str, what: str
) -> None:
    with answering(FLINK | changed) as cluster, pytest.raises(AddressError, match=what):
        cluster.check(parallelism, job)


def test_an_adaptive_one_begins_with_what_is_free() -> None:
    adaptive = {"/jobmanager/config": [{"key": "jobmanager.scheduler", "value": "adaptive"}]}
    with answering(FLINK | adaptive) as cluster:
        cluster.check(16, "x")
    none_free = {"/overview": FLINK["/overview"] | {"slots-available": 0}}  # type: ignore[operator]
    with (
        answering(FLINK | adaptive | none_free) as cluster,
        pytest.raises(AddressError, match="0 free"),
    ):
        cluster.check(16, "x")


@pytest.mark.parametrize("answer", [b"<html>hello</html>", b"", b"[]", b"null", None])
def test_what_is_no_flink_is_told_in_a_line(answer: bytes | None) -> None:
    with (
        answering({"/overview": answer}) as cluster,
        pytest.raises(ServiceUnavailableError, match="--flink_master http://127"),
    ):
        cluster.check(1, "x")
    gone = Cluster(f"http://127.0.0.1:{free_port()}", timeout_s=3)
    with pytest.raises(ServiceUnavailableError, match="no answer of a Flink"):
        gone.jobs()


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("h:8081", "http://h:8081"),
        ("https://h.example:443/", "https://h.example:443"),
        ("[::1]:8081", "http://[::1]:8081"),
    ],
)
def test_addresses(text: str, url: str) -> None:
    assert Cluster.parse(text).url == url


@pytest.mark.parametrize("text", ["h", "h:0", "h:65536", "ftp://h:1", "u:p@h:1", "h:1/x", "[local"])
def test_wrong_addresses(text: str) -> None:
    with pytest.raises(AddressError, match=r"write HOST:PORT"):
        Cluster.parse(text)


def test_a_pool_starts_and_stops_workers_a_process_each(caplog: pytest.LogCaptureFixture) -> None:
    """Of the same id a new one takes the place of the old; one that ends by itself is told."""
    listen = f"127.0.0.1:{free_port()}"
    nobody = endpoints_pb2.ApiServiceDescriptor(url=f"127.0.0.1:{free_port()}")
    caplog.set_level(logging.WARNING)
    with (
        serving(listen, "--log-format=json") as pool,
        grpc.insecure_channel(listen) as channel,
    ):
        ask = beam_fn_api_pb2_grpc.BeamFnExternalWorkerPoolStub(channel)

        def start(name: str) -> int:
            request = beam_fn_api_pb2.StartWorkerRequest(
                worker_id=name, provision_endpoint=nobody, control_endpoint=nobody
            )
            assert not ask.StartWorker(request, timeout=10).error
            return pool._workers[name].pid

        first, second = start("1-1"), start("1-2")
        third = start("1-1")
        assert not psutil.pid_exists(first)
        assert psutil.pid_exists(second)
        assert psutil.pid_exists(third)
        ask.StopWorker(beam_fn_api_pb2.StopWorkerRequest(worker_id="1-2"), timeout=20)
        assert not psutil.pid_exists(second)
        psutil.Process(third).kill()
        deadline = time.monotonic() + 10
        while "worker 1-1 has ended with exit code -9" not in caplog.text:
            assert time.monotonic() < deadline
            pool.look()
            time.sleep(0.05)
        fourth = start("1-1")
    assert not psutil.pid_exists(fourth)


def test_a_second_pool_at_one_place_is_refused() -> None:
    listen = f"127.0.0.1:{free_port()}"
    with (
        serving(listen),
        pytest.raises(AddressError, match="nothing can listen there"),
        serving(listen),
    ):
        pass
