"""Beam's runner for Flink, whose job server ends with this process."""

from __future__ import annotations

import atexit
import threading

from apache_beam.options.pipeline_options import FlinkRunnerOptions, PipelineOptions
from apache_beam.runners.portability.flink_runner import FlinkJarJobServer, FlinkRunner
from apache_beam.runners.portability.job_server import JobServer


class Flink(FlinkRunner):
    """Hands pipelines to a job server of its own. May be used from any thread.

    Beam's takes the interrupt from whoever has it, which only a main thread can.
    """

    def default_job_server(self, options: PipelineOptions) -> JobServer:
        """Return a job server that is not started yet."""
        flink = options.view_as(FlinkRunnerOptions)
        flink.flink_master = self.add_http_scheme(flink.flink_master)
        return _Ending(FlinkJarJobServer(options))


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
                atexit.register(self.stop)
            return self._endpoint

    def stop(self) -> None:
        """End it."""
        with self._lock:
            if self._endpoint is not None:
                self._server.stop()
                self._endpoint = None
