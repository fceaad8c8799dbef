"""Attempts, questions and updates of aggregates to write into a store: made by hand, or drawn."""

from __future__ import annotations

import itertools
import string
from collections.abc import Mapping
from typing import Any

from hypothesis import Phase, settings
from hypothesis import strategies as st

from group_scores.scores import ActivityAgg, ActivityKey, Attempt, Question
from group_scores.stores import AttemptWrite

MAX_TIME_MS = 253_402_300_799_999
NOW_US = 1_760_000_000_000_000

_numbers = itertools.count(1)


def new_key() -> ActivityKey:
    """Return a learner in a batch of a course that no other test has used."""
    number = next(_numbers)
    return ActivityKey(f"course-{number}", f"user-{number}", f"batch-{number}")


def question(**fields: Any) -> Question:
    """Return an answered question; `fields` are put over a plain one's."""
    plain: dict[str, Any] = {
        "id": "question",
        "assess_ts_ms": 1_760_000_000_000,
        "max_score": 2.0,
        "score": 1.5,
        "type": "mcq",
        "title": "Which of these?",
        "resvalues": [{"1": "one"}],
        "params": [{"1": "one"}, {"answer": "2"}],
        "description": None,
        "duration": 7.5,
    }
    return Question(**(plain | fields))


def attempt(key: ActivityKey, attempt_id: str = "attempt", **fields: Any) -> Attempt:
    """Return an attempt of that learner; `fields` are put over a plain one's."""
    plain: dict[str, Any] = {
        "content_id": "content",
        "last_attempted_on_ms": 1_760_000_000_000,
        "total_score": 1.5,
        "total_max_score": 2.0,
        "grand_total": "1.5/2.0",
        "questions": [question()],
    }
    return Attempt(
        user_id=key.user_id,
        course_id=key.course_id,
        batch_id=key.batch_id,
        attempt_id=attempt_id,
        **(plain | fields),
    )


def write(
    what: Attempt, write_us: int | None = None, now_us: int = NOW_US, create: bool = True
) -> AttemptWrite:
    """Return the write of an attempt, by default at the attempt's own time."""
    own_us = what.last_attempted_on_ms * 1000
    return AttemptWrite(what, own_us if write_us is None else write_us, now_us, create)


def update(
    key: ActivityKey,
    metrics: Mapping[str, float],
    t_us: int = NOW_US,
    details: list[str] | None = None,
) -> ActivityAgg:
    """Return the update of an aggregate row."""
    return ActivityAgg(key, t_us, dict(metrics), details)


def examples(share: float) -> settings:
    """Return settings with that share of the profile's examples: a store call costs more."""
    return settings(
        max_examples=max(5, int(settings.default.max_examples * share)),
        phases=(Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink),  # to explain is slow
    )


# What a store can be given: ids and texts that UTF-8 can hold, numbers that are finite.

_characters = st.characters(codec="utf-8")
texts = st.text(_characters, max_size=12)
ids = st.text(_characters, min_size=1, max_size=8).filter(lambda text: not text.isspace())
plain_ids = st.text(string.ascii_lowercase, min_size=1, max_size=3)
times_ms = st.integers(1, MAX_TIME_MS)
# A file of SQLite has no negative zero.
scores = st.floats(allow_nan=False, allow_infinity=False).map(lambda score: score + 0.0)
max_scores = st.floats(min_value=0, allow_nan=False, allow_infinity=False)
durations = st.one_of(
    st.integers(-(10**18) + 1, 10**18 - 1),
    st.floats(min_value=-1e18, max_value=1e18, exclude_min=True, exclude_max=True),
)
_maps = st.none() | st.lists(st.dictionaries(texts, texts, max_size=3), max_size=3)

questions = st.builds(
    Question,
    id=ids,
    assess_ts_ms=times_ms,
    max_score=max_scores,
    score=scores,
    type=st.none() | texts,
    title=st.none() | texts,
    resvalues=_maps,
    params=_maps,
    description=st.none() | texts,
    duration=durations,
)


def attempts(key: ActivityKey) -> st.SearchStrategy[Attempt]:
    """Draw attempts of one learner, of few contents and attempts so that some meet."""
    return st.builds(
        Attempt,
        user_id=st.just(key.user_id),
        course_id=st.just(key.course_id),
        batch_id=st.just(key.batch_id),
        content_id=plain_ids,
        attempt_id=ids,
        last_attempted_on_ms=times_ms,
        total_score=scores,
        total_max_score=max_scores,
        grand_total=texts,
        questions=st.lists(questions, min_size=1, max_size=4),
    )
