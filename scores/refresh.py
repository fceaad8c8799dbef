"""The event that stands for a row which a batch run could not write."""

from __future__ import annotations

import msgspec

from group_scores.scores.keys import ActivityKey
from group_scores.scores.record import SourceRecord

ATTEMPT_ID = "re-aggregation"


def refresh_event(key: ActivityKey, content_id: str, now_ms: int) -> SourceRecord:
    """Return an event without answers: put through the pipeline, it has the row computed again.

    A batch run reads no events, and what it cannot write would otherwise leave no trace.
    """
    event = {
        "courseId": key.course_id,
        "batchId": key.batch_id,
        "userId": key.user_id,
        "contentId": content_id,
        "attemptId": ATTEMPT_ID,
        "assessmentTs": now_ms,
        "events": [],
    }
    return SourceRecord(msgspec.json.encode(event), ATTEMPT_ID, None, 0)
