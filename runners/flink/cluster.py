"""A Flink cluster, asked by its REST interface."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import requests

from group_scores.stores.errors import AddressError, ServiceUnavailableError

VERSION = "1.19"
"""Beam's runner is made for each minor version of Flink; this is the one that is fetched."""

_ADDRESS = re.compile(r"(https?://)?(\[[0-9a-fA-F:]+\]|[^\s/:@\[\]]+):(\d{1,5})/?")
_GONE = ("FINISHED", "CANCELED", "FAILED")
_BEAM = "beam-runners-flink-"


class Running(NamedTuple):
    """A job of a cluster."""

    id: str
    name: str
    state: str


@dataclass(frozen=True)
class Cluster:
    """The job manager at `url`. Every method raises ServiceUnavailableError without an answer."""

    url: str
    timeout_s: float = 10.0

    @classmethod
    def parse(cls, master: str) -> Cluster:
        """Return the cluster of a --flink_master. Raises AddressError."""
        match = _ADDRESS.fullmatch(master)
        if match is None or not 0 < int(match[3]) < 65_536:
            raise AddressError(
                f"--flink_master {master}: write HOST:PORT of a cluster's REST interface, or "
                "[local], a Flink on this machine"
            )
        return cls(f"{match[1] or 'http://'}{match[2]}:{match[3]}")

    def check(self, parallelism: int, job_name: str | None) -> None:
        """See that a job can be taken. Raises AddressError, one line, where it cannot."""
        overview = self.get("/overview")
        version = str(overview.get("flink-version", ""))
        if not version.startswith(f"{VERSION}."):
            raise AddressError(
                f"--flink_master {self.url}: that is Flink {version or 'of no version'}; Beam's "
                f"runner here is made for {VERSION}"
            )
        if job_name and (same := [job for job in self.jobs() if job.name == job_name]):
            raise AddressError(
                f"a job named {job_name} is {same[0].state.lower()} at {self.url} "
                f"({same[0].id}): stop it first, or give this one another --job_name"
            )
        slots = overview.get("slots-available", 0)
        if slots < parallelism and not (slots and self._adapts()):
            raise AddressError(
                f"--parallelism {parallelism}: {self.url} has {slots} free of "
                f"{overview.get('slots-total', 0)} slots; give it more task managers, or ask for "
                "fewer slots"
            )

    def _adapts(self) -> bool:
        """Tell whether a job runs with the slots that are there, and with more when they come."""
        settings = self._ask("/jobmanager/config")
        return {"key": "jobmanager.scheduler", "value": "adaptive"} in settings

    def slots_a_task_manager(self) -> int:
        """Return the most slots that one of the task managers has; 1 where there is none yet."""
        managers = self.get("/taskmanagers").get("taskmanagers", [])
        return max([int(one["slotsNumber"]) for one in managers], default=1)

    def has_beam(self) -> bool:
        """Tell whether Beam's runner is on the cluster's own class path."""
        return _BEAM in str(self.get("/jobmanager/environment").get("classpath", ""))

    def jobs(self) -> list[Running]:
        """Return the jobs that are not over."""
        found = self.get("/jobs/overview").get("jobs", [])
        jobs = [Running(job["jid"], job["name"], job["state"]) for job in found]
        return [job for job in jobs if job.state not in _GONE]

    def get(self, path: str) -> Mapping[str, Any]:
        """Return the answer to a question, an object."""
        found = self._ask(path)
        if not isinstance(found, dict):
            raise ServiceUnavailableError(f"--flink_master {self.url}: that is no Flink")
        return found

    def _ask(self, path: str) -> Any:
        try:
            answer = requests.get(f"{self.url}{path}", timeout=self.timeout_s)
            found = answer.json() if answer.ok else None
        except (requests.exceptions.RequestException, ValueError):
            raise ServiceUnavailableError(
                f"--flink_master {self.url}: no answer of a Flink there; check the address, and "
                "that its job manager is up"
            ) from None
        if not answer.ok:
            raise ServiceUnavailableError(
                f"--flink_master {self.url}: {answer.status_code} to {path}; is that Flink's REST "
                "interface?"
            )
        return found
