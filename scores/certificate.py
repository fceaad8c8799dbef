"""The request for a course certificate that a processed event gives rise to."""

from __future__ import annotations

import uuid
from collections.abc import Sequence

import msgspec

from group_scores.scores.best_score import StoredAttempt, counts
from group_scores.scores.keys import ActivityKey


def certificate_attempt_id(attempts: Sequence[StoredAttempt]) -> str | None:
    """Return the `attemptId` of the request for a learner with these attempts in the batch.

    None where there is no attempt and so no request; the newest attempt's id, or an empty one
    where the learner has scores in more than one assessment of the batch.
    """
    if not attempts:
        return None
    if len({attempt.content_id for attempt in attempts if counts(attempt)}) > 1:
        return ""
    newest = max(attempts, key=lambda a: (a.last_attempted_on_ms or 0, a.attempt_id))
    return newest.attempt_id


def certificate_event(key: ActivityKey, attempt_id: str, now_ms: int) -> bytes:
    """Return one `BE_JOB_REQUEST` as JSON."""
    return msgspec.json.encode(
        {
            "eid": "BE_JOB_REQUEST",
            "ets": now_ms,
            "mid": f"LP.{now_ms}.{uuid.uuid4()}",
            "actor": {"id": "Course Certificate Generator", "type": "System"},
            "context": {"pdata": {"ver": "1.0", "id": "org.sunbird.platform"}},
            "object": {
                "id": f"{key.batch_id}_{key.course_id}",
                "type": "CourseCertificateGeneration",
            },
            "edata": {
                "userIds": [key.user_id],
                "action": "issue-certificate",
                "iteration": 1,
                "trigger": "auto-issue",
                "batchId": key.batch_id,
                "reIssue": False,
                "courseId": key.course_id,
                "attemptId": attempt_id,
            },
        }
    )
