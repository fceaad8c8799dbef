"""ScoreAttempt: events to attempts."""

from __future__ import annotations

from dataclasses import dataclass

import apache_beam as beam

from group_scores.scores import InvalidEventError, score_attempt
from group_scores.transforms.batching import Outcome, refuse, split
from group_scores.transforms.elements import ParsedEvent, Refusal, ScoredEvent

STAGE = "ScoreAttempt"


def score_event(parsed: ParsedEvent) -> ScoredEvent | Refusal:
    """Score the event's answers; an event without answers has no attempt of its own."""
    event = parsed.event
    try:
        attempt = score_attempt(event)
    except InvalidEventError as error:
        return Refusal.of(parsed.record, STAGE, error)
    return ScoredEvent(event.key, event.attempt_id, event.assessment_ts_ms, attempt, parsed.record)


class _ScoreFn(beam.DoFn):
    def process(self, parsed: ParsedEvent) -> tuple[ScoredEvent | beam.pvalue.TaggedOutput]:
        result = score_event(parsed)
        return (refuse(result) if isinstance(result, Refusal) else result,)


@dataclass
class ScoreAttempt(beam.PTransform):
    """Score each event's answers by the rules; sums beyond a double's range are refused."""

    def expand(self, events: beam.PCollection) -> Outcome:
        """ParsedEvent -> ScoredEvent, Refusal."""
        return split(events, "Score", _ScoreFn(), ScoredEvent)
