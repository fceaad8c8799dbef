"""The rules: what an event is, how it is scored, which attempt is the best, what a row holds.

Plain values and functions of the standard library and msgspec. Nothing here knows Beam, a
database driver or a broker, and nothing here does input or output; a rule that another package
needs belongs here, a statement or a transform does not.
"""

from group_scores.scores.aggregate import (
    METRICS,
    ActivityAgg,
    AggregateRow,
    activity_agg,
    agg_details,
)
from group_scores.scores.attempt import Attempt, Question, score_attempt
from group_scores.scores.best_score import BestScore, StoredAttempt, best_scores
from group_scores.scores.event import Answer, AssessEvent, InvalidEventError, parse_event
from group_scores.scores.keys import ActivityKey, AssessmentKey
from group_scores.scores.record import SourceRecord

__all__ = [
    "METRICS",
    "ActivityAgg",
    "ActivityKey",
    "AggregateRow",
    "Answer",
    "AssessEvent",
    "AssessmentKey",
    "Attempt",
    "BestScore",
    "InvalidEventError",
    "Question",
    "SourceRecord",
    "StoredAttempt",
    "activity_agg",
    "agg_details",
    "best_scores",
    "parse_event",
    "score_attempt",
]
