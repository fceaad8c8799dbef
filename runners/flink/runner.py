"""Beam's runner for Flink, whose job server ends with this process."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

from apache_beam.options.pipeline_options import (
    FlinkRunnerOptions,
    GoogleCloudOptions,
    PipelineOptions,
    PortableOptions,
)
from apache_beam.runners.portability.flink_runner import FlinkJarJobServer, FlinkRunner
from apache_beam.runners.portability.job_server import JobServer

from group_scores.runners.command import at_end
from group_scores.runners.flink.cluster import Cluster
from group_scores.runners.flink.job_server import MAIN_CLASS, cluster_jars
from group_scores.runners.flink.options import EMBEDDED

_STARTING_S = 10.0


class Flink(FlinkRunner):
    """Hands pipelines to a job server of its own. May be used from any thread.

    Beam's takes the interrupt from whoever has it, which only a main thread can.
    """

    def default_job_server(self, options: PipelineOptions) -> JobServer:
        """Return a job server that is not started yet."""
        cluster = cluster_of(options)
        if cluster is not None:
            options.view_as(FlinkRunnerOptions).flink_master = cluster.url
            if not cluster.has_beam():
                return _Ending(_StagingJobServer(options))
        return _Ending(FlinkJarJobServer(options))


def cluster_of(options: PipelineOptions) -> Cluster | None:
    """Return the cluster that a run is for; None where it is a Flink of its own."""
    master = options.view_as(FlinkRunnerOptions).flink_master
    return None if master in EMBEDDED else Cluster.parse(master)


def checks(options: PipelineOptions) -> dict[str, Callable[[], object]]:
    """Return what is to be looked at before a run on a cluster, by what it is."""
    cluster = cluster_of(options)
    if cluster is None:
        return {}
    parallelism = max(1, options.view_as(FlinkRunnerOptions).parallelism)
    name = options.view_as(GoogleCloudOptions).job_name
    return {f"--flink_master {cluster.url}": lambda: cluster.check(parallelism, name)}


def described(options: PipelineOptions) -> str:
    """Say in a line what a run on a cluster takes from where."""
    cluster = cluster_of(options)
    if cluster is None:
        return "a Flink of its own, on this machine"
    portable = options.view_as(PortableOptions)
    where = {
        "EXTERNAL": f"workers from the pool at {portable.environment_config} of each task manager",
        "PROCESS": "workers started by the task managers",
        "LOOPBACK": "workers in this process",
    }.get(portable.environment_type, f"workers by {portable.environment_type}")
    jars = "the cluster's own jars of Beam" if cluster.has_beam() else "Beam's jars staged"
    slots = max(1, options.view_as(FlinkRunnerOptions).parallelism)
    return f"Flink at {cluster.url}, {slots} slot{'s' if slots > 1 else ''}, {where}, {jars}"


class _StagingJobServer(FlinkJarJobServer):
    """For a cluster without Beam: the jars on this one's class path are staged with each job."""

    def subprocess_cmd_and_endpoint(self) -> tuple[list[str], str]:
        command, endpoint = super().subprocess_cmd_and_endpoint()
        jar = str(self.path_to_jar())
        java, _, *words = command
        at = words.index(jar)
        # What is Flink's is there, and comes last here: a cluster has its own.
        jars = os.pathsep.join([*map(str, cluster_jars()), jar])
        return [java, *words[:at], "-cp", jars, MAIN_CLASS, *words[at + 1 :]], endpoint


class _Ending(JobServer):
    """A job server that is stopped when the process ends."""

    def __init__(self, server: JobServer) -> None:
        self._server = server
        self._lock = threading.Lock()
        self._endpoint: object = None

    def start(self) -> object:
        """Start it, once; return what speaks with it."""
        with self._lock:
            if self._endpoint is None:
                self._endpoint = self._server.start()
                at_end(self.stop)
            return self._endpoint

    def stop(self) -> None:
        """End it, also one that another thread is starting."""
        if self._lock.acquire(timeout=_STARTING_S):
            try:
                if self._endpoint is not None:
                    self._server.stop()
                    self._endpoint = None
            finally:
                self._lock.release()
