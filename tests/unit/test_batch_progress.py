"""How far a run over a snapshot is: its ranges, and the attempts in them."""

from __future__ import annotations

from collections.abc import Iterator

import apache_beam as beam
import pytest
from apache_beam.runners.portability.fn_api_runner import FnApiRunner

from group_scores.stores.sstable.reader import split_ring
from group_scores.stores.sstable.snapshot import SnapshotAddress
from group_scores.transforms import snapshot
from group_scores.transforms.progress import temporary_progress
from group_scores.transforms.snapshot import ReadSnapshot, TokenRange


class Reader:
    """Two learners in each of five ranges."""

    t_us = 1_700_000_000_000_000

    def ranges(self) -> list[TokenRange]:
        return split_ring(5)

    def read(self, start: int, end: int) -> Iterator[tuple[object, ...]]:
        for user in (f"{start}", f"{end}"):
            yield (user, "course", "batch", "content", "attempt", 1, 2.0, None)


def test_of_a_snapshot_ranges_and_attempts_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshot, "prepared", lambda _: (None, []))
    monkeypatch.setattr(snapshot, "open_reader", lambda _: Reader())
    with temporary_progress() as progress:
        pipeline = beam.Pipeline(runner=FnApiRunner())
        _ = pipeline | ReadSnapshot(SnapshotAddress(("f",)), progress, allow_partial=True)
        assert progress.ranges() == (0.0, 5)  # before anything is read
        pipeline.run().wait_until_finish()
        assert progress.ranges() == (5.0, 5)
        progress.write()
        assert progress.read() == 10
