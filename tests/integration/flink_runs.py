"""What the tests of endless runs share: a run as a process, and how far its group is."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from group_scores.transforms.kafka.address import KafkaAddress
from group_scores.transforms.kafka.group import GroupOffsets
from tests.integration.pipeline_runs import arguments

WAIT_S = 150.0


@contextmanager
def streaming(
    source: str, store: str, log: Path, words: Sequence[str]
) -> Iterator[subprocess.Popen[bytes]]:
    """An endless run, in a session of its own; what it says is added to `log`."""
    command = arguments("run", *words, source=source, store=store)
    with (
        log.open("ab") as said,
        subprocess.Popen(
            command, stdout=said, stderr=subprocess.STDOUT, start_new_session=True
        ) as process,
    ):
        try:
            yield process
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


class Reading:
    """How far the group of a source is. Use it as a context manager."""

    def __init__(self, source: str, log: Path, *, partitions: int) -> None:
        self._address = KafkaAddress.parse(source)
        self._offsets = GroupOffsets(self._address)
        self._partitions = range(partitions)
        self._log = log

    def __enter__(self) -> Reading:
        return self

    def __exit__(self, *_: object) -> None:
        self._offsets.close()

    def committed(self) -> int:
        """Return how many offsets have been committed."""
        found = self._offsets.committed(self._partitions, timeout_s=30)
        return sum(offset or 0 for offset in found.values())

    def wait(self, number: int, process: subprocess.Popen[bytes] | None = None) -> None:
        """Wait until so many have been committed; the process, if given, must stay alive."""
        deadline = time.monotonic() + WAIT_S
        while (found := self.committed()) < number:
            assert process is None or process.poll() is None, self._log.read_text()[-4000:]
            assert time.monotonic() < deadline, f"{found} of {number}: {self._log.read_text()}"
            time.sleep(0.3)


def metric(text: str, name: str) -> float:
    """Return the sum of one of our metrics over all workers, from what Prometheus is told."""
    found = re.findall(rf"_group_scores_{name}\{{[^\n]*\}} (\S+)", text)
    return sum(map(float, found))
