"""What a runner does with the rest of an element that a splittable DoFn hands back to it."""

from __future__ import annotations

import apache_beam as beam
from apache_beam.options.pipeline_options import DirectOptions


def loses_what_is_handed_back(pipeline: beam.Pipeline) -> bool:
    """Whether the rest of an element, handed back to the runner, would be lost.

    With several workers Beam's local runner (2.70) merges their results and forgets the residuals
    in them, silently (apache/beam#19842 is near). What is read in one turn is delivered.
    """
    return bool(pipeline._options.view_as(DirectOptions).direct_num_workers != 1)
