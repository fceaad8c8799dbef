"""Small worlds of attempts: what workers are given, what was there before, what has to come out."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import Any

from hypothesis import strategies as st

from group_scores.scores import (
    METRICS,
    ActivityAgg,
    ActivityKey,
    Attempt,
    SourceRecord,
    StoredAttempt,
    activity_agg,
)
from group_scores.scores.best_score import BestScore
from group_scores.stores import AttemptWrite, Selection, Store, StoreTransientError
from group_scores.transforms.combine_attempts import combine_attempts
from group_scores.transforms.elements import (
    ActivityUpdate,
    LearnerAttempts,
    ScoredEvent,
)
from group_scores.transforms.fetch_best_score import fetch_best_scores
from group_scores.transforms.merge_agg import merge_agg
from group_scores.transforms.parse_event import parse_record
from group_scores.transforms.retry import Retry
from group_scores.transforms.score_attempt import score_event
from group_scores.transforms.scored_keys import columns_of, scored_keys
from group_scores.transforms.verify_agg import verify_rows
from group_scores.transforms.write_agg import write_aggregates, write_changed
from group_scores.transforms.write_attempt import write_attempts
from tests import naive
from tests.convergence.interleaving import Crash, World

_FETCHED_AT_ONCE = 2
_WAITING = Retry(30, longest_pause_s=0)


@dataclass(frozen=True)
class Event:
    """One event; `scores` are those of its questions, empty for an event without answers."""

    user: str
    batch: str
    content: str
    attempt: str
    time_ms: int
    scores: tuple[float, ...]
    course: str = "do_1"

    def message(self) -> bytes:
        answers = [
            {"ets": n + 1, "edata": {"item": {"id": f"q{n}", "maxscore": 5}, "score": score}}
            for n, score in enumerate(self.scores)
        ]
        event = {
            "courseId": self.course,
            "userId": self.user,
            "batchId": self.batch,
            "contentId": self.content,
            "attemptId": self.attempt,
            "assessmentTs": self.time_ms,
            "events": answers,
        }
        return json.dumps(event).encode()

    def scored(self) -> ScoredEvent:
        parsed = parse_record(SourceRecord(self.message(), "events", 0, 0))
        scored = score_event(parsed)  # type: ignore[arg-type]
        assert isinstance(scored, ScoredEvent)
        return scored


def events() -> st.SearchStrategy[Event]:
    """Few ids and times, so that most events meet others."""
    return st.builds(
        Event,
        user=st.sampled_from(["u1", "u2"]),
        batch=st.sampled_from(["b1", "b1", "b2"]),
        content=st.sampled_from(["c1", "c1", "c2"]),
        attempt=st.sampled_from(["a1", "a2", "a3"]),
        time_ms=st.integers(1_600_000_000_000, 1_600_000_000_003),
        scores=st.sampled_from([(), (1.0,), (0.0, 2.0), (3.5, 0.5), (-1.0,), (0.1, 0.2)]),
    )


@dataclass(frozen=True)
class Plan:
    """What each worker is given, bundle by bundle, and the rows that were there before.

    `before` are attempts with the wall-clock write times of the job in use before; their
    aggregates are out of date.
    """

    bundles: list[list[list[Event]]]
    before: list[Event]
    retry_s: list[int]

    def in_course(self, course: str) -> Plan:
        """Return the same plan for another course, so that a store can be used again."""
        return replace(
            self,
            bundles=[
                [[replace(event, course=course) for event in bundle] for bundle in worker]
                for worker in self.bundles
            ],
            before=[replace(event, course=course) for event in self.before],
        )

    @property
    def course(self) -> str:
        return self.events[0].course

    @property
    def events(self) -> list[Event]:
        return [event for worker in self.bundles for bundle in worker for event in bundle]


@st.composite
def plans(draw: Callable[..., Any], most: int = 8) -> Plan:
    """Events, some of them delivered again, in bundles of two or three workers."""
    drawn = draw(st.lists(events(), min_size=1, max_size=most))
    again = draw(st.lists(st.sampled_from(drawn), max_size=3))
    workers = draw(st.integers(2, 3))
    bundles: list[list[list[Event]]] = [[[]] for _ in range(workers)]
    for event in draw(st.permutations(drawn + again)):
        worker = bundles[draw(st.integers(0, workers - 1))]
        if draw(st.booleans()):
            worker.append([])
        worker[-1].append(event)
    before = draw(st.lists(events().filter(lambda e: e.scores), max_size=3, unique_by=_identity))
    retry_s = [draw(st.sampled_from([0, 30])) for _ in range(workers)]
    return Plan(bundles, before, retry_s)


def _identity(event: Event) -> tuple[str, ...]:
    return (event.user, event.batch, event.content, event.attempt)


class Digits:
    """Sub-millisecond digits, a range of its own for every bundle: in production they are drawn at
    random, so that two tries are equal once in hundreds of races; here that is ruled out."""

    def __init__(self) -> None:
        self._ranges = count(0, 25)

    def next(self) -> int:
        return next(self._ranges) % 900


def work(
    bundles: Sequence[Sequence[Event]], retry_s: int, digits: Digits
) -> Callable[[Store], None]:
    """Return what a worker does: the pipeline's own stage functions, bundle after bundle.

    A crash, or a store that stays away, has the bundle delivered again from its start.
    """

    def run(store: Store) -> None:
        retry = Retry(retry_s, longest_pause_s=0)
        for bundle in bundles:
            while not _process(store, bundle, retry, digits):
                pass

    return run


def _process(store: Store, bundle: Sequence[Event], retry: Retry, digits: Digits) -> bool:
    try:
        scored = [event.scored() for event in bundle]
        written = write_attempts(store, scored, retry, digits.next())
        # A later stage's batches need not end where an earlier one's do.
        for start in range(0, len(written.assessed), _FETCHED_AT_ONCE):
            some = written.assessed[start : start + _FETCHED_AT_ONCE]
            best = fetch_best_scores(store, some, retry)
            write_aggregates(store, [merge_agg(one) for one in best], METRICS, retry)
    except (Crash, StoreTransientError):
        return False
    return True


PutThrough = Callable[[Store, int, list[dict[str, Any]], int], None]
"""What is done with a snapshot: the store, its time and rows, and the digits of the writes."""


def reaggregate(
    course: str, late: int, digits: Digits, put_through: PutThrough
) -> Callable[[Store], None]:
    """Return what a batch run does: take a snapshot, and put it through `late` steps later.

    A crash, or a store that stays away, has the same snapshot put through from its start.
    """

    def run(store: Store) -> None:
        taken: tuple[int, list[dict[str, Any]]] | None = None
        while True:
            try:
                if taken is None:
                    taken = store.now_us(), list(store.scan("attempts", Selection(course)))
                for _ in range(late):
                    store.now_us()
                put_through(store, *taken, digits.next())
            except (Crash, StoreTransientError):
                continue
            return

    return run


def write_snapshot(store: Store, t_us: int, rows: list[dict[str, Any]], digits: int) -> None:
    """Write what differs, as `run` does."""
    updates = _updates(store, t_us, rows)
    write_changed(store, updates, METRICS, _WAITING, digits)


def prune_snapshot(store: Store, t_us: int, rows: list[dict[str, Any]], digits: int) -> None:
    """Write what differs and take the orphans out, as `verify --repair --prune` does."""
    updates = _updates(store, t_us, rows)
    scanned = store.scan("aggregates", Selection(Event.course))
    columns = columns_of(store)
    stored = scored_keys((tuple(row[name] for name in columns) for row in scanned), METRICS)
    known = {update.agg.key for update in updates}
    orphans = [
        ActivityUpdate(ActivityAgg(key, t_us, {}, []), [], None, [])
        for key in stored
        if key not in known
    ]
    verify_rows(store, updates + orphans, METRICS, _WAITING, repair=True, prune=True, digits=digits)


def _updates(store: Store, t_us: int, rows: list[dict[str, Any]]) -> list[ActivityUpdate]:
    def key(row: dict[str, Any]) -> ActivityKey:
        return ActivityKey(row["course_id"], row["user_id"], row["batch_id"])

    learners = [
        LearnerAttempts(
            one,
            [
                StoredAttempt(*(row[name] for name in _ATTEMPT_COLUMNS))
                for row in rows
                if key(row) == one
            ],
        )
        for one in dict.fromkeys(map(key, rows))
    ]
    details = store.wants_details
    return [merge_agg(combine_attempts(learner, t_us, details=details)) for learner in learners]


_ATTEMPT_COLUMNS = (
    "content_id",
    "attempt_id",
    "last_attempted_on",
    "total_score",
    "total_max_score",
)


def write_before(store: Store, plan: Plan, *, orphans: bool = False) -> None:
    """Write the earlier job's rows: wall-clock write times, and aggregates that are wrong.

    With `orphans` there are scores of all that the events are for, though no attempts yet.
    """
    now_us = store.now_us()
    for event in plan.events if orphans else ():
        wrong = {event.content: BestScore(88.0, 88.0, 88, "a9", 1)}
        orphan = activity_agg(activity_key(event), now_us - 4_500, wrong, METRICS, None)
        assert store.write_aggregates([orphan]) == [None]
    for event in plan.before:
        attempt = event.scored().attempt
        assert isinstance(attempt, Attempt)
        write = AttemptWrite(attempt, now_us - 5_000, now_us - 5_000, create=True)
        assert store.write_attempts([write]) == [None]
        wrong = {event.content: BestScore(99.0, 99.0, 99, "a9", 1)}
        stale = activity_agg(activity_key(event), now_us - 4_000, wrong, METRICS, ["stale"])
        assert store.write_aggregates([stale]) == [None]


def activity_key(event: Event) -> ActivityKey:
    return ActivityKey(event.course, event.user, event.batch)


def converge(
    stores: Sequence[Store],
    plan: Plan,
    world: World,
    batch_runs: Sequence[int] = (),
    batch_store: Store | None = None,
    put_through: PutThrough = write_snapshot,
) -> None:
    """Run the plan's workers, each with its store, and check what is left.

    `batch_runs` go on beside them, on `batch_store` or the first store: how late each puts its
    snapshot through.
    """
    write_before(stores[0], plan, orphans=put_through is prune_snapshot)
    existing = list(stores[0].scan("attempts", Selection(plan.course)))
    digits = Digits()
    streams = [
        (store, work(bundles, retry_s, digits))
        for store, bundles, retry_s in zip(stores, plan.bundles, plan.retry_s, strict=True)
    ]
    batches = [
        (batch_store or stores[0], reaggregate(plan.course, late, digits, put_through))
        for late in batch_runs
    ]
    world.run(streams + batches)
    check(stores[0], plan, existing)


def check(store: Store, plan: Plan, existing: list[dict[str, object]]) -> None:
    """Compare the store with the recomputation; raises AssertionError with the differences."""
    rows = list(store.scan("attempts", Selection(plan.course)))
    messages = [event.message() for event in plan.events]
    wrong = naive.compare_attempts(rows, messages, existing)
    asked = naive.asked_for(messages)
    wrong += naive.compare_aggregates(list(_aggregates(store, plan)), rows, asked)
    assert not wrong, "\n".join(wrong)


def _aggregates(store: Store, plan: Plan) -> Iterator[dict[str, object]]:
    """Yield each row that events were for, without the keys that no event was for."""
    contents: dict[ActivityKey, set[str]] = {}
    for event in plan.events:
        contents.setdefault(activity_key(event), set()).add(event.content)
    for key, asked in contents.items():
        (row,) = store.read_aggregates([key])
        assert not isinstance(row, Exception)
        assert set(row.agg_last_updated_ms) == set(row.agg) == set(row.aggregates)
        if row.agg or row.details:
            yield {
                "activity_id": key.course_id,
                "user_id": key.user_id,
                "context_id": key.context_id,
                "agg": _of(row.agg, asked),
                "aggregates": _of(row.aggregates, asked),
                "agg_details": row.details,
            }


def _of(values: dict[str, Any], contents: set[str]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key.partition(":")[2] in contents}
