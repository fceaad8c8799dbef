"""CombineAttempts: the best scores of a scan, without a lookup for each learner."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import apache_beam as beam

from group_scores.scores import agg_details, best_scores
from group_scores.stores import StoreConfig
from group_scores.transforms.elements import AttemptsPage, BestScores, LearnerAttempts
from group_scores.transforms.resources import shared_store
from group_scores.transforms.retry import Retry


def combine_attempts(learner: LearnerAttempts, t_us: int, *, details: bool) -> BestScores:
    """Return the best scores of every assessment of a learner, as of the scan's time."""
    attempts = learner.attempts
    return BestScores(
        learner.key,
        t_us,
        best_scores(attempts),
        list(dict.fromkeys([attempt.content_id for attempt in attempts])),
        agg_details(attempts) if details else None,
        None,  # certificates are asked for by events
        [],
    )


class _CombineFn(beam.DoFn):
    def __init__(self, store: StoreConfig, retry: Retry) -> None:
        self._store = store
        self._retry = retry

    def process(self, page: AttemptsPage) -> Iterator[BestScores]:
        store = self._retry.call(lambda: shared_store(self._store))
        details = store.wants_details
        for learner in page.learners:
            yield combine_attempts(learner, page.t_us, details=details)


@dataclass
class CombineAttempts(beam.PTransform):
    """Find the best scores of learners whose attempts come together, as a scan gives them.

    What FetchBestScore reads from the store for each event is in the pages. `store` is asked only
    whether it keeps `agg_details`.
    """

    store: StoreConfig
    retry: Retry = Retry()

    def expand(self, pages: beam.PCollection) -> beam.PCollection:
        """AttemptsPage -> BestScores, one a learner and batch."""
        do_fn = _CombineFn(self.store, self.retry)
        return pages | "Combine" >> beam.ParDo(do_fn).with_output_types(BestScores)
