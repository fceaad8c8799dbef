"""What scores are looked up by, and the limits that a key's parts have to keep."""

from __future__ import annotations

from typing import NamedTuple

MAX_KEY_BYTES = 65_535
"""Cassandra's limit for a partition key, a clustering key and a map key: lengths are 16 bits."""

ACTIVITY_TYPE = "Course"
METRIC_PREFIXES = ("score:", "max_score:", "attempts_count:")
_COMPONENT_OVERHEAD = 3  # a composite key stores two bytes of length and an end-of-component byte


class ActivityKey(NamedTuple):
    """One row of `user_activity_agg`: a learner in a batch of a course."""

    course_id: str
    user_id: str
    batch_id: str

    @property
    def context_id(self) -> str:
        """The clustering key of the aggregate row."""
        return "cb:" + self.batch_id


class AssessmentKey(NamedTuple):
    """One assessment of a learner in a batch of a course: what a best score is the best of."""

    course_id: str
    user_id: str
    batch_id: str
    content_id: str

    @property
    def activity(self) -> ActivityKey:
        """The row of `user_activity_agg` that shows this assessment's best score."""
        return ActivityKey(self.course_id, self.user_id, self.batch_id)


def oversized_key(
    course_id: str, user_id: str, batch_id: str, content_id: str, attempt_id: str
) -> tuple[str, int] | None:
    """Return the first key that is over MAX_KEY_BYTES as (description, its bytes), or None.

    Both primary keys of `assessment_aggregator` found in the field are checked, and all three
    metrics, so that what one deployment takes is not refused by the next.
    """
    course, user, batch, content, attempt = (
        len(part.encode()) for part in (course_id, user_id, batch_id, content_id, attempt_id)
    )
    if course + user + batch + content + attempt < MAX_KEY_BYTES - 64:
        return None  # no key can be over: the usual event costs one comparison
    sizes = {
        "userId and courseId (the partition key of an attempt)": (
            user + course + 2 * _COMPONENT_OVERHEAD
        ),
        "courseId and userId (the partition key of an aggregate)": (
            len(ACTIVITY_TYPE) + course + user + 3 * _COMPONENT_OVERHEAD
        ),
        "batchId, userId, contentId and attemptId (the clustering key of an attempt)": (
            batch + user + content + attempt
        ),
        "batchId (the clustering key of an aggregate)": len("cb:") + batch,
        "contentId (a key of the aggregate's maps)": max(map(len, METRIC_PREFIXES)) + content,
    }
    return next(((name, size) for name, size in sizes.items() if size > MAX_KEY_BYTES), None)
