"""The request for a certificate: its shape, and which attempt it names."""

from __future__ import annotations

import json
import math
import re

import pytest

from group_scores.scores import ActivityKey, StoredAttempt
from group_scores.scores.certificate import certificate_attempt_id, certificate_event


def stored(
    content_id: str, attempt_id: str, time_ms: int | None = 1_000, score: float | None = 1.0
) -> StoredAttempt:
    return StoredAttempt(content_id, attempt_id, time_ms, score, 1.0)


def test_the_request_is_what_the_certificate_job_reads() -> None:
    key = ActivityKey("do_course", "user", "batch")
    request = json.loads(certificate_event(key, "attempt", 1_760_000_000_123))
    mid = request.pop("mid")
    assert re.fullmatch(r"LP\.1760000000123\.[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", mid)
    assert request == {
        "eid": "BE_JOB_REQUEST",
        "ets": 1_760_000_000_123,
        "actor": {"id": "Course Certificate Generator", "type": "System"},
        "context": {"pdata": {"ver": "1.0", "id": "org.sunbird.platform"}},
        "object": {"id": "batch_do_course", "type": "CourseCertificateGeneration"},
        "edata": {
            "userIds": ["user"],
            "action": "issue-certificate",
            "iteration": 1,
            "trigger": "auto-issue",
            "batchId": "batch",
            "reIssue": False,
            "courseId": "do_course",
            "attemptId": "attempt",
        },
    }
    assert list(json.loads(certificate_event(key, "", 1))) == [
        "eid",
        "ets",
        "mid",
        "actor",
        "context",
        "object",
        "edata",
    ]


def test_no_two_requests_have_one_mid() -> None:
    key = ActivityKey("c", "u", "b")
    assert (
        json.loads(certificate_event(key, "", 1))["mid"]
        != (json.loads(certificate_event(key, "", 1))["mid"])
    )


def test_without_an_attempt_there_is_no_request() -> None:
    assert certificate_attempt_id([]) is None


def test_the_newest_attempt_is_named() -> None:
    attempts = [stored("c", "z", 1_000, 9.0), stored("c", "a", 3_000, 0.0), stored("c", "m", 2_000)]
    for order in (attempts, attempts[::-1]):
        assert certificate_attempt_id(order) == "a"


def test_of_attempts_at_one_time_the_greater_id_is_named() -> None:
    attempts = [stored("c", "a"), stored("c", "b")]
    for order in (attempts, attempts[::-1]):
        assert certificate_attempt_id(order) == "b"


def test_scores_in_more_than_one_assessment_name_no_attempt() -> None:
    assert certificate_attempt_id([stored("c1", "a"), stored("c2", "b")]) == ""


@pytest.mark.parametrize("nothing", [None, math.nan, math.inf])
def test_an_attempt_without_a_score_makes_no_second_assessment(nothing: float | None) -> None:
    attempts = [stored("c1", "a", 1_000), stored("c2", "b", 2_000, nothing)]
    assert certificate_attempt_id(attempts) == "b"


def test_an_attempt_without_a_time_is_the_oldest() -> None:
    assert certificate_attempt_id([stored("c", "z", None), stored("c", "a", 1)]) == "a"
