"""OrphanRows: the learners whose row holds scores, and of whom a scan found no attempt at all."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import apache_beam as beam

from group_scores.scores import ActivityAgg
from group_scores.transforms.elements import ActivityUpdate, decode_key, encode_key


class _KnownFn(beam.DoFn):
    def process(self, update: ActivityUpdate) -> tuple[tuple[bytes, bool]]:
        return ((encode_key(update.agg.key), True),)


class _StoredFn(beam.DoFn):
    def process(self, key: bytes) -> tuple[tuple[bytes, bool]]:
        return ((key, False),)


class _OrphanFn(beam.DoFn):
    def __init__(self, t_us: int) -> None:
        self._t_us = t_us

    def process(self, group: tuple[bytes, Iterable[bool]]) -> Iterator[ActivityUpdate]:
        key, has_attempts = group
        if not any(has_attempts):
            yield ActivityUpdate(ActivityAgg(decode_key(key), self._t_us, {}, []), [], None, [])


@dataclass
class OrphanRows(beam.PTransform):
    """Give the empty update of each row for which `updates` has none, as of `t_us`.

    `stored` gives the rows' keys. The keys of both sides are shuffled: 0.7 kB of memory a learner
    and batch.
    """

    stored: beam.PTransform
    t_us: int

    def expand(self, updates: beam.PCollection) -> beam.PCollection:
        """ActivityUpdate -> ActivityUpdate."""
        side = beam.typehints.Tuple[bytes, bool]
        known = updates | "Known" >> beam.ParDo(_KnownFn()).with_output_types(side)
        stored = (
            updates.pipeline
            | "Stored" >> self.stored
            | "Unknown" >> beam.ParDo(_StoredFn()).with_output_types(side)
        )
        return (
            (known, stored)
            | "Both" >> beam.Flatten()
            | "ByKey" >> beam.GroupByKey()
            | "Orphans" >> beam.ParDo(_OrphanFn(self.t_us)).with_output_types(ActivityUpdate)
        )
