"""The worker pool: starts a Python worker for each one that a task manager asks for.

Beam's own listens on every network of the machine, and its workers are told nothing of the
pipeline's options.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any

os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # what it says is in our one line
import grpc
from apache_beam.portability.api import beam_fn_api_pb2, beam_fn_api_pb2_grpc

from group_scores.runners.command import DEBUG
from group_scores.runners.logs import OPTION, debugging, log_format
from group_scores.stores.errors import AddressError

log = logging.getLogger(__name__)

_STOP_S = 10.0
_LOOK_EVERY_S = 1.0
_THREADS = 8
# -P: what lies in the current folder is not to be taken for a library.
COMMAND = (sys.executable, "-P", "-m", "group_scores.runners.flink.boot")


class WorkerPool(beam_fn_api_pb2_grpc.BeamFnExternalWorkerPoolServicer):
    """The workers of one task manager, a process each.

    Task managers number their workers alike: two of them must not share a pool.
    """

    def __init__(self, *words: str) -> None:
        self._command = (*COMMAND, *words)
        self._lock = threading.Lock()
        self._workers: dict[str, subprocess.Popen[bytes]] = {}

    def StartWorker(self, request: Any, _: Any) -> Any:
        """Start the worker that is asked for."""
        name = request.worker_id
        self._stop(name)  # the task manager that had it was killed, and is back
        try:
            process = subprocess.Popen(
                [
                    *self._command,
                    f"--id={name}",
                    f"--provision_endpoint={request.provision_endpoint.url}",
                    f"--control_endpoint={request.control_endpoint.url}",
                ],
                stdin=subprocess.DEVNULL,
            )
        except OSError as error:
            return beam_fn_api_pb2.StartWorkerResponse(error=f"no worker: {error}")
        with self._lock:
            self._workers[name] = process
        log.info("worker %s started, process %d", name, process.pid)
        return beam_fn_api_pb2.StartWorkerResponse()

    def StopWorker(self, request: Any, _: Any) -> Any:
        """Stop it, with some time to end in order."""
        self._stop(request.worker_id)
        return beam_fn_api_pb2.StopWorkerResponse()

    def _stop(self, name: str) -> None:
        with self._lock:
            process = self._workers.pop(name, None)
        if process:
            log.info("worker %s is stopped", name)
            _end(process)

    def look(self) -> None:
        """Say which workers have ended by themselves; the task manager asks for others."""
        with self._lock:
            ended = {n: p for n, p in self._workers.items() if p.poll() is not None}
            for name in ended:
                del self._workers[name]
        for name, process in ended.items():
            log.warning("worker %s has ended with exit code %d", name, process.returncode)

    def close(self) -> None:
        """Stop all workers."""
        with self._lock:
            left = list(self._workers.values())
            self._workers.clear()
        for process in left:
            process.terminate()
        for process in left:
            _end(process)


@contextmanager
def serving(listen: str, *words: str) -> Iterator[WorkerPool]:
    """Serve a pool on `HOST:PORT` for the length of a `with` block; `words` go to each worker.

    Raises AddressError where nothing can listen there.
    """
    pool = WorkerPool(*words)
    server = grpc.server(
        ThreadPoolExecutor(_THREADS),
        options=[("grpc.so_reuseport", 0)],  # a second pool there is to be told
    )
    beam_fn_api_pb2_grpc.add_BeamFnExternalWorkerPoolServicer_to_server(pool, server)
    try:
        port = server.add_insecure_port(listen)
    except RuntimeError:
        port = 0
    if not port:
        raise AddressError(
            f"--listen {listen}: nothing can listen there; write HOST:PORT, and is the port free?"
        )
    server.start()
    try:
        yield pool
    finally:
        server.stop(0)
        pool.close()


def serve(listen: str) -> None:
    """Serve until the process is told to end; the workers log as this process does."""
    words = [f"{OPTION}={log_format()}", *([DEBUG] if debugging() else [])]
    with serving(listen, *words) as pool:
        log.warning("workers are started at %s", listen)
        while True:
            threading.Event().wait(_LOOK_EVERY_S)
            pool.look()


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(_STOP_S)
        return
    process.kill()
    process.wait()
