"""OrphanRows: the learners whose row holds scores, and of whom a scan found no attempt at all."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass

import apache_beam as beam
import msgspec

from group_scores.scores import METRICS, ActivityAgg, ActivityKey
from group_scores.stores import Selection, StoreConfig
from group_scores.transforms.elements import ActivityUpdate
from group_scores.transforms.resources import shared_store
from group_scores.transforms.retry import Retry

_encode = msgspec.msgpack.encode
_decode = msgspec.msgpack.Decoder(ActivityKey).decode


def scored_keys(
    rows: Iterable[Mapping[str, object]], metrics: Collection[str]
) -> Iterator[ActivityKey]:
    """Yield the keys of the rows that have anything of ours."""
    prefixes = tuple(f"{metric}:" for metric in metrics)
    for row in rows:
        maps = (row.get("agg"), row.get("aggregates"))
        names = (name for values in maps if isinstance(values, Mapping) for name in values)
        if row.get("agg_details") or any(name.startswith(prefixes) for name in names):
            batch = str(row["context_id"]).removeprefix("cb:")
            yield ActivityKey(str(row["activity_id"]), str(row["user_id"]), batch)


class _ScanFn(beam.DoFn):
    def __init__(
        self, store: StoreConfig, selection: Selection, metrics: tuple[str, ...], retry: Retry
    ) -> None:
        self._store = store
        self._selection = selection
        self._metrics = metrics
        self._retry = retry

    def process(self, _: bytes) -> Iterator[tuple[bytes, bool]]:
        store = self._retry.call(lambda: shared_store(self._store))

        def scan() -> list[bytes]:
            rows = store.scan("aggregates", self._selection)
            return list(map(_encode, scored_keys(rows, self._metrics)))

        # A scan that is broken off begins again; its keys are gathered by the shuffle anyway.
        for key in self._retry.call(scan):
            yield key, False


class _OrphanFn(beam.DoFn):
    def __init__(self, t_us: int) -> None:
        self._t_us = t_us

    def process(self, group: tuple[bytes, Iterable[bool]]) -> Iterator[ActivityUpdate]:
        key, has_attempts = group
        if not any(has_attempts):
            yield ActivityUpdate(ActivityAgg(_decode(key), self._t_us, {}, []), [], None, [])


@dataclass
class OrphanRows(beam.PTransform):
    """Give the empty update of each row for which `updates` has none, as of `t_us`.

    Reads the whole table of aggregates, or what the `selection` leaves of it. The keys of both
    sides are shuffled: some 100 bytes a learner and batch.
    """

    store: StoreConfig
    t_us: int
    selection: Selection = Selection()
    metrics: tuple[str, ...] = METRICS
    retry: Retry = Retry()

    def expand(self, updates: beam.PCollection) -> beam.PCollection:
        """ActivityUpdate -> ActivityUpdate."""
        side = beam.typehints.Tuple[bytes, bool]
        known = updates | "Known" >> beam.Map(
            lambda update: (_encode(update.agg.key), True)
        ).with_output_types(side)
        scan = _ScanFn(self.store, self.selection, self.metrics, self.retry)
        stored = (
            updates.pipeline
            | "Start" >> beam.Impulse()
            | "Scan" >> beam.ParDo(scan).with_output_types(side)
        )
        return (
            (known, stored)
            | "Both" >> beam.Flatten()
            | "ByKey" >> beam.GroupByKey()
            | "Orphans" >> beam.ParDo(_OrphanFn(self.t_us)).with_output_types(ActivityUpdate)
        )
