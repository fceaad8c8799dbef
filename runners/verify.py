"""`verify`: run the comparison, tell what differs, and decide how it ends."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from group_scores.runners import drift_screen, screen
from group_scores.runners.command import write_out
from group_scores.runners.drift_screen import Tally
from group_scores.runners.run_options import open_source
from group_scores.stores import AddressError, StoreConfig

if TYPE_CHECKING:
    from group_scores.pipelines import VerifyJob
    from group_scores.transforms.verify_agg import RowReport

DIFFERENCES = 3
"""The exit code where something differs, or did not take that was to be repaired."""


@dataclass(frozen=True)
class VerifyOptions:
    """The values of the options, as the command line gives them."""

    source: str
    store: StoreConfig
    metrics: str
    store_retry_s: float
    repair: bool
    prune: bool
    allow_partial: bool
    format: str
    beam_options: tuple[str, ...]

    def job(self, report: str) -> VerifyJob:
        """Return the job that writes to `report`; raises AddressError."""
        # Imported here: loading Beam takes seconds that the other commands need not pay.
        from group_scores.pipelines import VerifyJob
        from group_scores.pipelines.options import parse_metrics
        from group_scores.transforms.retry import Retry

        if self.prune and not self.repair:
            raise AddressError("--prune goes with --repair; give both, or neither to only look")
        if self.prune and self.allow_partial:
            raise AddressError(
                "--prune takes out scores without an attempt, and with --allow-partial the attempt "
                "may be in a file that is missing; give one of the two"
            )
        source = open_source(self.source, allow_partial=self.allow_partial)
        if source.gives != "attempts":
            raise AddressError(
                f"{self.source} gives events, and verify compares with all attempts; name "
                "cassandra://HOST:PORT/KEYSPACE or snapshot:DIR"
            )
        self.store.check()
        return VerifyJob(
            source=source,
            store=self.store,
            report=report,
            metrics=parse_metrics(self.metrics),
            retry=Retry(self.store_retry_s),
            repair=self.repair,
            prune=self.prune,
        )


def verify(options: VerifyOptions, own_options: list[str]) -> int:
    """Compare, repair if that is asked for, print, and return the exit code."""
    from group_scores.runners import launch
    from group_scores.runners.beam_options import pipeline_options
    from group_scores.runners.dataflow.options import is_dataflow

    with tempfile.TemporaryDirectory(prefix="group-scores-verify-") as folder:
        report = os.path.join(folder, "drift.jsonl")
        job = options.job(report)
        beam = pipeline_options(options.beam_options, own_options)
        if is_dataflow(beam):
            raise AddressError("verify reads on this machine what its workers tell; drop --runner")
        total = launch.check_verify(job)
        counts = launch.run_verify(
            job, beam, lambda seen: screen.progress("attempts", total, seen.read, seen.ranges)
        )
        tally = Tally(repair=options.repair, prune=options.prune)
        show = _print_lines if options.format == "jsonl" else drift_screen.show_drift
        show(read_report(report), counts, tally)
    return DIFFERENCES if tally.left else 0


def read_report(path: str) -> Iterator[RowReport]:
    """Yield the rows that differ, each as it was told last; none where there is no such file.

    A bundle that is delivered again tells its rows again.
    """
    from group_scores.transforms.verify_agg import RowReport

    decode = msgspec.json.Decoder(RowReport).decode
    if not os.path.exists(path):
        return
    with open(path, "rb") as file:
        last = {_row_of(decode(line)): number for number, line in enumerate(file)}
        file.seek(0)
        for number, report in enumerate(map(decode, file)):
            if last[_row_of(report)] == number:
                yield report


def _row_of(report: RowReport) -> tuple[str, str, str]:
    return report.course_id, report.user_id, report.batch_id


def _print_lines(reports: Iterator[RowReport], _: dict[str, float], tally: Tally) -> None:
    for report in reports:
        tally.add(report)
        write_out(msgspec.json.encode(report) + b"\n")
    if tally.orphans:
        screen.tell(drift_screen.of_orphans(tally))
