"""An endless run on a Flink cluster of the benchmark's own: started, watched, cancelled."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import psutil

from tests.integration.flink_runs import Reading, streaming
from tests.servers.flink_cluster import FlinkCluster

_LOOK_S = 0.02
_WAIT_S = 600.0


class Cpu(NamedTuple):
    """CPU seconds so far of the Python workers, and of the JVMs of Flink."""

    python_s: float
    flink_s: float


class EndlessRun:
    """A job on a cluster. Nothing of it runs where this does."""

    def __init__(self, cluster: FlinkCluster, reading: Reading, log: Path) -> None:
        self.cluster = cluster
        self.reading = reading
        self._log = log

    def wait(self, number: int) -> tuple[int, float]:
        """Wait until so many offsets are committed; return how many are, and when it was."""
        deadline = time.monotonic() + _WAIT_S
        while True:
            found, now_s = self.reading.committed(), time.monotonic()
            if found >= number:
                return found, now_s
            if now_s > deadline:
                raise RuntimeError(f"{found} of {number} after {_WAIT_S:g} s:\n{self._said()}")
            time.sleep(_LOOK_S)

    def cpu(self) -> Cpu:
        """Return what was used so far."""
        return Cpu(sum(map(_cpu_s, self.python())), sum(map(_cpu_s, self.jvms())))

    def python(self) -> list[psutil.Process]:
        """Return the Python workers."""
        return [worker for pool in self.cluster.pools for worker in pool.workers()]

    def jvms(self) -> list[psutil.Process]:
        """Return the job manager and the task managers."""
        servers = [self.cluster.job_manager, *self.cluster.task_managers]
        return [psutil.Process(server.pid) for server in servers]

    @property
    def job(self) -> str:
        """The id of the job."""
        (job,) = self.cluster.jobs("RUNNING")
        return job

    def _said(self) -> str:
        return self._log.read_text()[-2000:]


@contextmanager
def endless_run(
    cluster: FlinkCluster, source: str, store: str, folder: Path, *words: str, partitions: int
) -> Iterator[EndlessRun]:
    """Have a job for the length of a `with` block."""
    log = folder / "endless.log"
    arguments = [*cluster.arguments, *words]
    with (
        Reading(source, log, partitions=partitions) as reading,
        streaming(source, store, log, arguments),
    ):
        run = EndlessRun(cluster, reading, log)
        try:
            yield run
        finally:
            for job in cluster.jobs("RUNNING", "RESTARTING", "CREATED"):
                cluster.cancel_job(job)
            while cluster.jobs("RUNNING", "RESTARTING", "CANCELLING"):
                time.sleep(0.2)


def _cpu_s(process: psutil.Process) -> float:
    with suppress(psutil.Error):
        times = process.cpu_times()
        return float(times.user + times.system)
    return 0.0
