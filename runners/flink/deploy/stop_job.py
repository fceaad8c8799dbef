#!/usr/bin/env python3
"""Stop the job of a Flink cluster with a savepoint, before it is started again.

`stop-job HOST:8081` in the launcher's image. It needs nothing but Python, so that it can be copied
to wherever the cluster's REST interface is reached from. The savepoint's place is printed. With
`--or-cancel` a job that gives no savepoint is cancelled: its offsets are in Kafka, and what was not
committed is read again. That there is no such job is no failure. With `--slots` it then waits for
so many that are free.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

_ENDED = ("FINISHED", "CANCELED", "FAILED")
_EVERY_S = 1.0
_ASK_S = 10.0

T = TypeVar("T")


class StopError(Exception):
    """What is said, and nothing more."""


class Cluster:
    """The REST interface at `address`, `HOST:PORT`."""

    def __init__(self, address: str, wait_s: float) -> None:
        self.address = address
        self._wait_s = wait_s

    def ask(self, method: str, path: str, body: object = None) -> Any:
        """Return the answer. Raises OSError without one, StopError for one that refuses."""
        request = urllib.request.Request(
            f"http://{self.address}{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=_ASK_S) as answer:
                return json.loads(answer.read() or b"null")
        except urllib.error.HTTPError as error:
            raise StopError(f"{self.address}: {error.code} to {method} {path}") from None

    def until(self, what: str, look: Callable[[], T | None]) -> T:
        """Look again until there is something. Raises StopError when the time is over."""
        deadline = time.monotonic() + self._wait_s
        while True:
            try:
                found, why = look(), ""
            except (OSError, ValueError) as error:
                found, why = None, f" ({error})"
            if found is not None:
                return found
            if time.monotonic() > deadline:
                raise StopError(f"{self.address}: {what} within {self._wait_s:g} s{why}")
            time.sleep(_EVERY_S)

    def job(self, name: str) -> str:
        """Return the id of the job of that name which is not over, or an empty text."""
        jobs = self.until("no answer", lambda: self.ask("GET", "/jobs/overview")["jobs"])
        same = [one for one in jobs if one["name"] == name and one["state"] not in _ENDED]
        return str(same[0]["jid"]) if same else ""

    def stop(self, job: str, savepoints: str | None, drain: bool) -> str:
        """Stop it with a savepoint; return where that is. Raises StopError where there is none."""
        order = {"drain": drain} | ({"targetDirectory": savepoints} if savepoints else {})
        try:
            trigger = self.ask("POST", f"/jobs/{job}/stop", order)["request-id"]
        except OSError as error:
            raise StopError(f"{self.address}: no savepoint ({error})") from None

        def done() -> Any:
            answer = self.ask("GET", f"/jobs/{job}/savepoints/{trigger}")
            return answer["operation"] if answer["status"]["id"] == "COMPLETED" else None

        operation = self.until("the savepoint was not made", done)
        if "location" not in operation:
            cause = str(operation.get("failure-cause", {}).get("class", "no reason given"))
            raise StopError(f"{self.address}: no savepoint ({cause})")
        return str(operation["location"])

    def wait_for_slots(self, number: int) -> None:
        """Wait until so many are free. Raises StopError."""

        def free() -> bool | None:
            return self.ask("GET", "/overview")["slots-available"] >= number or None

        self.until(f"no {number} free slots", free)

    def cancel(self, job: str, name: str) -> None:
        """Cancel it, and wait until it is over. Raises StopError."""
        try:
            self.ask("PATCH", f"/jobs/{job}?mode=cancel")
        except OSError as error:
            raise StopError(f"{self.address}: {job} is not cancelled ({error})") from None
        self.until(f"{job} did not end", lambda: None if self.job(name) else True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Return the exit code: 0 when no such job runs any more."""
    parser = argparse.ArgumentParser(prog="stop-job", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("address", metavar="HOST:PORT", help="of the cluster's REST interface")
    parser.add_argument("--job-name", default="group-scores")
    parser.add_argument("--savepoints", metavar="URI", help="default: the cluster's own place")
    parser.add_argument("--drain", action="store_true", help="for good: the job cannot be resumed")
    parser.add_argument("--or-cancel", action="store_true", help="where there is no savepoint")
    parser.add_argument("--slots", type=int, default=0, help="then wait for so many free ones")
    parser.add_argument("--wait-s", type=float, default=120.0, help="for each answer (120)")
    given = parser.parse_args(arguments)
    cluster = Cluster(given.address, given.wait_s)
    try:
        _stop(cluster, given)
        if given.slots:
            cluster.wait_for_slots(given.slots)
    except StopError as error:
        print(f"stop-job: {error}", file=sys.stderr)
        return 1
    return 0


def _stop(cluster: Cluster, given: argparse.Namespace) -> None:
    job = cluster.job(given.job_name)
    if not job:
        print(f"no job named {given.job_name} runs at {given.address}", file=sys.stderr)
        return
    try:
        print(cluster.stop(job, given.savepoints, given.drain))
    except StopError as error:
        if not given.or_cancel:
            raise
        print(f"stop-job: {error}; cancelled instead", file=sys.stderr)
        cluster.cancel(job, given.job_name)


if __name__ == "__main__":
    sys.exit(main())
