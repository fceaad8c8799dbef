"""A Flink cluster on this machine: a job manager, task managers, each with a pool of workers."""

from __future__ import annotations

import contextlib
import json
import socket
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import psutil
import yaml

from tests.servers import artifacts
from tests.servers.process import Server, ServerError, free_port, port_open

# Those of Flink's own start script on Java 17 that are met here.
OPENS = (
    "java.base/java.lang",
    "java.base/java.lang.invoke",
    "java.base/java.lang.reflect",
    "java.base/java.io",
    "java.base/java.net",
    "java.base/java.nio",
    "java.base/java.text",
    "java.base/java.time",
    "java.base/java.util",
    "java.base/java.util.concurrent",
    "java.base/java.util.concurrent.atomic",
    "java.base/java.util.concurrent.locks",
    "java.base/sun.nio.ch",
)
LOG4J = """rootLogger.level = INFO
rootLogger.appenderRef.out.ref = Out
appender.out.name = Out
appender.out.type = CONSOLE
appender.out.layout.type = PatternLayout
appender.out.layout.pattern = %d{ISO8601} %-5p %c{1} - %m%n
"""
_MB = {
    "taskmanager.memory.network.min": 32,
    "taskmanager.memory.network.max": 32,
    "taskmanager.memory.managed.size": 64,
    "taskmanager.memory.task.heap.size": 192,
    "taskmanager.memory.task.off-heap.size": 0,
    "taskmanager.memory.framework.heap.size": 128,
    "taskmanager.memory.framework.off-heap.size": 64,
    "taskmanager.memory.jvm-metaspace.size": 192,
    "taskmanager.memory.jvm-overhead.min": 64,
    "taskmanager.memory.jvm-overhead.max": 64,
}


class _Jvm(Server):
    """A process of Flink's."""

    main_class = ""
    start_timeout_s = 60.0

    def __init__(self, folder: Path, settings: Mapping[str, Any], *, heap_mb: int) -> None:
        super().__init__(folder)
        self.settings = dict(settings)
        self.with_beam = True
        self._heap_mb = heap_mb

    def prepare(self) -> None:
        (self.folder / "tmp").mkdir(exist_ok=True)
        (self.folder / "log4j.properties").write_text(LOG4J)
        # As texts: a reporter takes a port that is a number for no port at all.
        settings = {name: str(value) for name, value in self.settings.items()}
        (self.folder / "config.yaml").write_text(yaml.safe_dump(settings))

    def command(self) -> Sequence[str]:
        return [
            artifacts.java(),
            f"-Xmx{self._heap_mb}m",
            "-XX:+UseSerialGC",
            "-XX:+PerfDisableSharedMem",
            f"-Djava.io.tmpdir={self.folder / 'tmp'}",
            f"-Dlog4j.configurationFile={(self.folder / 'log4j.properties').as_uri()}",
            *(f"--add-opens={name}=ALL-UNNAMED" for name in OPENS),
            *self.java_words(),
            "-cp",
            ":".join(map(str, [f"{artifacts.flink() / 'lib'}/*", *self._beam()])),
            self.main_class,
            "--configDir",
            str(self.folder),
            *self.words(),
        ]

    def _beam(self) -> list[Path]:
        return artifacts.beam_jars() if self.with_beam else []

    def java_words(self) -> list[str]:
        return []

    def words(self) -> list[str]:
        return []


class JobManager(_Jvm):
    """The one that takes jobs, by REST at `address`."""

    name = "job-manager"
    main_class = "org.apache.flink.runtime.entrypoint.StandaloneSessionClusterEntrypoint"

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        super().__init__(folder, settings, heap_mb=384)
        self.port = settings["rest.port"]
        self.address = f"{self.host}:{self.port}"

    def words(self) -> list[str]:
        return ["--executionMode", "cluster"]

    def ready(self) -> bool:
        with contextlib.suppress(OSError, ValueError):
            return "taskmanagers" in self.get("/overview")
        return False

    def get(self, path: str) -> Any:
        """Return what REST answers."""
        return self.ask("GET", path)

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """Send a request; return the answer."""
        request = urllib.request.Request(
            f"http://{self.address}{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.loads(answer.read() or "null")


class WorkerPool(Server):
    """Our own pool of Python workers, for one task manager."""

    name = "worker-pool"
    known_as = "worker-pool"
    start_timeout_s = 30.0

    def __init__(self, folder: Path, host: str, port: int) -> None:
        super().__init__(folder)
        self.host = host
        self.port = port

    def prepare(self) -> None:
        pass

    def command(self) -> Sequence[str]:
        program = Path(sys.executable).with_name("group-scores")
        return [str(program), "worker-pool", "--listen", f"{self.host}:{self.port}"]

    def ready(self) -> bool:
        return port_open(self.host, self.port)

    def workers(self) -> list[psutil.Process]:
        """Return the Python workers that run now."""
        return psutil.Process(self.pid).children() if self.running else []


class TaskManager(_Jvm):
    """One with so many slots; metrics for Prometheus at `metrics`."""

    name = "task-manager"
    main_class = "org.apache.flink.runtime.taskexecutor.TaskManagerRunner"

    def __init__(
        self, folder: Path, settings: Mapping[str, Any], *, slots: int, pool: WorkerPool
    ) -> None:
        self.pool = pool
        self.metrics_port = free_port()
        self.metrics = f"http://127.0.0.1:{self.metrics_port}/metrics"
        own = {
            "taskmanager.numberOfTaskSlots": slots,
            "metrics.reporter.prom.port": self.metrics_port,
            "taskmanager.cpu.cores": 1.0,
            **{name: f"{mb}m" for name, mb in _MB.items()},
        }
        super().__init__(folder, {**settings, **own}, heap_mb=320)

    def prepare(self) -> None:
        super().prepare()
        # All are told one address of a pool, and each is to find its own there.
        (self.folder / "hosts").write_text(
            f"127.0.0.1 localhost {socket.gethostname()}\n{self.pool.host} {WorkerPool.known_as}\n"
        )

    def java_words(self) -> list[str]:
        return [f"-Djdk.net.hosts.file={self.folder / 'hosts'}"]

    def ready(self) -> bool:
        return port_open(self.host, self.metrics_port)

    def told(self) -> str:
        """Return what it says to Prometheus; nothing while it is down."""
        with (
            contextlib.suppress(urllib.error.URLError, OSError),
            urllib.request.urlopen(self.metrics, timeout=10) as answer,
        ):
            return str(answer.read().decode())
        return ""


class FlinkCluster:
    """All of it. `arguments` are what a run on it is to be told.

    `with_beam` says whether it has Beam's jars; `settings` are put over Flink's.
    """

    def __init__(
        self,
        folder: Path,
        *,
        task_managers: int = 2,
        slots: int = 1,
        with_beam: bool = True,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        self.folder = folder
        state = folder / "state"
        self.checkpoints = state / "checkpoints"
        self.savepoints = state / "savepoints"
        all_settings = {
            "jobmanager.rpc.address": "127.0.0.1",
            "jobmanager.rpc.port": free_port(),
            "jobmanager.bind-host": "127.0.0.1",
            "jobmanager.memory.process.size": "768m",
            "rest.address": "127.0.0.1",
            "rest.bind-address": "127.0.0.1",
            "rest.port": free_port(),
            "taskmanager.host": "127.0.0.1",
            "taskmanager.bind-host": "127.0.0.1",
            "io.tmp.dirs": str(folder / "tmp"),
            "heartbeat.interval": 2000,
            "heartbeat.timeout": 8000,  # a task manager that was killed is missed the sooner
            "state.backend.type": "hashmap",
            "state.checkpoints.dir": self.checkpoints.as_uri(),
            "state.savepoints.dir": self.savepoints.as_uri(),
            "metrics.reporters": "prom",
            "metrics.reporter.prom.factory.class": (
                "org.apache.flink.metrics.prometheus.PrometheusReporterFactory"
            ),
            "metrics.reporter.prom.port": free_port(),
            **(settings or {}),
        }
        self.job_manager = JobManager(folder / "job-manager", all_settings)
        port = free_port()
        self.pools = [
            WorkerPool(folder / f"worker-pool-{number}", f"127.0.0.{1 + number}", port)
            for number in range(task_managers)
        ]
        self.task_managers = [
            TaskManager(folder / f"task-manager-{number}", all_settings, slots=slots, pool=pool)
            for number, pool in enumerate(self.pools)
        ]
        for server in (self.job_manager, *self.task_managers):
            server.with_beam = with_beam

    @property
    def servers(self) -> list[Server]:
        """Every process but the Python workers."""
        return [self.job_manager, *self.pools, *self.task_managers]

    @property
    def arguments(self) -> list[str]:
        """Beam's options for a run on this cluster."""
        return [
            *("--runner", "FlinkRunner", "--flink_master", self.job_manager.address),
            f"--environment_config={WorkerPool.known_as}:{self.pools[0].port}",
        ]

    def start(self, but: TaskManager | None = None) -> Self:
        """Start all, or all but one; what is running already stays."""
        (self.folder / "tmp").mkdir(parents=True, exist_ok=True)
        for server in self.servers:
            if server is not but:
                server.start()
        wanted = sum(one.running for one in self.task_managers)
        deadline = time.monotonic() + 30
        while self.job_manager.get("/overview")["taskmanagers"] < wanted:
            if time.monotonic() > deadline:
                raise ServerError("the task managers did not register with the job manager")
            time.sleep(0.1)
        return self

    def kill(self) -> None:
        """Stop all, as `kill -9` does."""
        for server in reversed(self.servers):
            server.kill()

    def jobs(self, *states: str) -> list[str]:
        """Return the ids of the jobs in one of these states, all jobs without any."""
        jobs = self.job_manager.get("/jobs")["jobs"]
        return [job["id"] for job in jobs if not states or job["status"] in states]

    def parallelism(self, job: str) -> int:
        """Return with how many subtasks at most its parts run."""
        vertices = self.job_manager.get(f"/jobs/{job}")["vertices"]
        return max(int(vertex["parallelism"]) for vertex in vertices)

    def stop_job(self, job: str, *, drain: bool = False) -> str:
        """Stop it with a savepoint, and return where that is."""
        order = {"targetDirectory": self.savepoints.as_uri(), "drain": drain}
        trigger = self.job_manager.ask("POST", f"/jobs/{job}/stop", order)["request-id"]
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            answer = self.job_manager.get(f"/jobs/{job}/savepoints/{trigger}")
            if answer["status"]["id"] == "COMPLETED":
                operation = answer["operation"]
                if "location" not in operation:
                    raise ServerError(f"no savepoint: {operation}")
                return str(operation["location"])
            time.sleep(0.2)
        raise ServerError("the savepoint was not made in 60 s")

    def cancel_job(self, job: str) -> None:
        """Cancel it."""
        self.job_manager.ask("PATCH", f"/jobs/{job}?mode=cancel")

    def metrics(self) -> str:
        """Return what all task managers say to Prometheus."""
        return "".join(one.told() for one in self.task_managers)
