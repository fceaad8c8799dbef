"""VerifyAgg: how rows differ from what their attempts give, and, if asked for, the repair."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import apache_beam as beam
import msgspec
from apache_beam.metrics import Metrics

from group_scores.scores import METRICS
from group_scores.scores.drift import Difference, RowDrift
from group_scores.stores import Store, StoreConfig
from group_scores.transforms.batching import SCANNED, BatchingDoFn, BatchSize
from group_scores.transforms.elements import ActivityUpdate
from group_scores.transforms.metrics import NAMESPACE
from group_scores.transforms.repair_agg import find_drift, is_mended, mend, newest, to_mend
from group_scores.transforms.resources import shared_store
from group_scores.transforms.retry import Retry
from group_scores.transforms.sinks import shared_sink


class RowReport(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is told of one row that differs, as one JSON line.

    `remaining` are the differences that are still there: all of them where nothing was repaired.
    `refused` is why the store would not take the repair.
    """

    course_id: str
    user_id: str
    batch_id: str
    differences: list[Difference]
    remaining: list[Difference] = []
    refused: str | None = None

    def left(self, *, repair: bool, prune: bool) -> list[Difference]:
        """Return what remains of what was to go: all where nothing was to be repaired."""
        return [one for one in self.remaining if is_mended(one, prune=prune or not repair)]


def verify_rows(
    store: Store,
    updates: Sequence[ActivityUpdate],
    metrics: tuple[str, ...],
    retry: Retry,
    *,
    repair: bool,
    prune: bool,
    digits: int | None = None,
) -> list[RowReport]:
    """Return a report for each row that differs, after repairing it where that is asked for.

    A learner who comes twice is compared once, with what was read last. `digits` are those of
    `write_drift`.
    """
    expected = list(newest(updates).values())
    found = [
        (drift, agg)
        for drift, agg in zip(find_drift(store, expected, metrics, retry), expected, strict=True)
        if drift.differences
    ]
    if not repair:
        return [_report(drift, drift.differences) for drift, _ in found]
    drifts = [drift for drift, _ in found]
    with_them = [agg for _, agg in found]
    mended = mend(store, drifts, with_them, metrics, retry, prune=prune, digits=digits)
    reports = []
    for drift, one in zip(drifts, mended, strict=True):
        mendable = to_mend(drift, prune=prune)
        kept = [difference for difference in drift.differences if difference not in mendable]
        left = mendable if one.refused else one.left
        reports.append(_report(drift, [*kept, *left], str(one.refused) if one.refused else None))
    return reports


def _report(drift: RowDrift, remaining: list[Difference], refused: str | None = None) -> RowReport:
    course, user, batch = drift.key
    return RowReport(course, user, batch, drift.differences, remaining, refused)


class _VerifyFn(BatchingDoFn[ActivityUpdate]):
    def __init__(
        self,
        store: StoreConfig,
        report: str,
        metrics: tuple[str, ...],
        retry: Retry,
        size: BatchSize,
        repair: bool,
        prune: bool,
    ) -> None:
        super().__init__("VerifyAgg", size)
        self._store = store
        self._report = report
        self._metrics = metrics
        self._retry = retry
        self._repair = repair
        self._prune = prune
        self._rows = Metrics.counter(NAMESPACE, "aggregates_compared")

    def size_of(self, element: ActivityUpdate) -> int:
        return sum(map(len, element.agg.details or ()))

    def flush(self, batch: list[ActivityUpdate]) -> Iterator[int]:
        store = self._retry.call(lambda: shared_store(self._store))
        reports = verify_rows(
            store, batch, self._metrics, self._retry, repair=self._repair, prune=self._prune
        )
        self._rows.inc(len(batch))
        for kind, number in _kinds(reports).items():
            Metrics.counter(NAMESPACE, f"drift_{kind}").inc(number)
        if reports:
            sink = self._retry.call(lambda: shared_sink(self._report))
            lines = [msgspec.json.encode(report) for report in reports]
            self._retry.call(lambda: sink.write(lines))
        yield len(reports)


def _kinds(reports: Sequence[RowReport]) -> Counter[str]:
    return Counter(one.kind for report in reports for one in report.differences)


@dataclass
class VerifyAgg(beam.PTransform):
    """Compare each update with its row, write a RowReport a differing row to `report`.

    `repair` writes what is missing or stale and looks whether it took; `prune` with it takes out
    what has no attempt any more.
    """

    store: StoreConfig
    report: str
    metrics: tuple[str, ...] = METRICS
    retry: Retry = Retry()
    size: BatchSize = SCANNED
    repair: bool = False
    prune: bool = False

    def expand(self, updates: beam.PCollection) -> beam.PCollection:
        """ActivityUpdate -> int, the number of rows that differ in each batch."""
        do_fn = _VerifyFn(
            self.store,
            self.report,
            self.metrics,
            self.retry,
            self.size,
            self.repair,
            self.prune,
        )
        return updates | "Verify" >> beam.ParDo(do_fn).with_output_types(int)
