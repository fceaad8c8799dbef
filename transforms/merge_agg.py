"""MergeAgg: best scores to the partial update of a learner's aggregate row."""

from __future__ import annotations

from dataclasses import dataclass

import apache_beam as beam

from group_scores.scores import METRICS, activity_agg
from group_scores.transforms.elements import ActivityUpdate, BestScores


def merge_agg(best: BestScores, metrics: tuple[str, ...] = METRICS) -> ActivityUpdate:
    """Put the best scores of one (course, learner, batch) into the keys of one row's maps."""
    return ActivityUpdate(
        activity_agg(best.key, best.t_us, best.best, metrics, best.details),
        best.contents,
        best.certificate_attempt_id,
        best.records,
    )


class _MergeFn(beam.DoFn):
    def __init__(self, metrics: tuple[str, ...]) -> None:
        self._metrics = metrics

    # A DoFn, as an argument beside the element makes Beam put each call's together anew.
    def process(self, best: BestScores) -> tuple[ActivityUpdate]:
        return (merge_agg(best, self._metrics),)


@dataclass
class MergeAgg(beam.PTransform):
    """Make the row's update of each learner's best scores; `metrics` says which keys."""

    metrics: tuple[str, ...] = METRICS

    def expand(self, scores: beam.PCollection) -> beam.PCollection:
        """BestScores -> ActivityUpdate."""
        merge = beam.ParDo(_MergeFn(self.metrics))
        return scores | "Merge" >> merge.with_output_types(ActivityUpdate)
