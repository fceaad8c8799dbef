"""How the scores of an assessment are spread: counts by tenths of the maximum."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from group_scores.scores.report import AssessmentScore

BINS = 10


@dataclass
class Distribution:
    """Counts of the learners of a course batch in one assessment.

    `bins[i]` has those from 10·i percent to under 10·(i+1), the last one also 100 and more, the
    first one also those below 0. `unknown` have attempted it and have no percentage.
    """

    bins: list[int] = field(default_factory=lambda: [0] * BINS)
    unknown: int = 0
    sum_percent: float = 0.0

    @property
    def known(self) -> int:
        """How many learners have a percentage."""
        return sum(self.bins)

    @property
    def attempted(self) -> int:
        """How many learners have attempted it."""
        return self.known + self.unknown

    @property
    def mean_percent(self) -> float | None:
        """The mean of the percentages; None without any."""
        mean = self.sum_percent / self.known if self.known else math.inf
        return mean if math.isfinite(mean) else None

    def add(self, score: AssessmentScore) -> None:
        """Count a learner who has attempted it."""
        self.add_percent(score.percent)

    def add_percent(self, percent: float | None) -> None:
        """Count a percentage, or one that is not known."""
        if percent is None:
            self.unknown += 1
            return
        self.bins[_bin_of(percent)] += 1
        self.sum_percent += percent


def _bin_of(percent: float) -> int:
    return int(min(max(percent // (100 / BINS), 0), BINS - 1))


def bin_label(number: int) -> str:
    """Return `30-39`: the percentages of a bin, whole."""
    first = number * 100 // BINS
    return f"{first}-{(number + 1) * 100 // BINS - (number < BINS - 1)}"
