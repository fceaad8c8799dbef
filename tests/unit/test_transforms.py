"""The stages one by one: their functions over a store in memory, their wiring on a local runner."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import apache_beam as beam
import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.testing.util import assert_that, equal_to
from apache_beam.transforms import window
from apache_beam.utils.windowed_value import WindowedValue
from hypothesis import given
from hypothesis import strategies as st

from group_scores.scores import METRICS, ActivityAgg, AssessmentKey, SourceRecord, StoredAttempt
from group_scores.scores.attempt import MAX_TRIES
from group_scores.stores import (
    AddressError,
    AttemptsRead,
    StoreConfig,
    StoreRefusedError,
    StoreTransientError,
)
from group_scores.stores.sqlite import SqliteStore
from group_scores.transforms import (
    FetchBestScore,
    MergeAgg,
    ParseEvent,
    Retry,
    ScoreAttempt,
    WriteAgg,
    WriteAttempt,
    WriteDeadLetters,
)
from group_scores.transforms.batching import BatchingDoFn, BatchSize
from group_scores.transforms.elements import AssessedEvent, Refusal, ScoredEvent
from group_scores.transforms.fetch_best_score import fetch_best_scores
from group_scores.transforms.merge_agg import merge_agg
from group_scores.transforms.parse_event import parse_record
from group_scores.transforms.repair_agg import find_drift, write_drift
from group_scores.transforms.score_attempt import score_event
from group_scores.transforms.write_agg import write_aggregates
from group_scores.transforms.write_attempt import write_attempts
from tests.convergence.workload import Event

NOW = Retry(0)
AGAIN = Retry(5, longest_pause_s=0)
PATIENT = Retry(3_600, longest_pause_s=0)
ANY = Event("u1", "b1", "c1", "a1", 1_600_000_000_000, (1.0,))


def pipeline() -> beam.Pipeline:
    runner = "apache_beam.runners.portability.fn_api_runner.FnApiRunner"
    return beam.Pipeline(options=PipelineOptions([], runner=runner))


def record(event: Event, offset: int = 0) -> SourceRecord:
    return SourceRecord(event.message(), "events", 0, offset)


def scored(event: Event, offset: int = 0) -> ScoredEvent:
    result = score_event(parse_record(record(event, offset)))  # type: ignore[arg-type]
    assert isinstance(result, ScoredEvent)
    return result


@pytest.fixture
def store(tmp_path: Path) -> Any:
    opened = SqliteStore(str(tmp_path / "scores.db"))
    yield opened
    opened.close()


class Faulty:
    """A store whose named method first returns the given faults for its items."""

    def __init__(self, store: Any, method: str, faults: Sequence[Callable[[Any], Any]]) -> None:
        self._store = store
        self._method = method
        self._faults = list(faults)
        self.calls: list[list[Any]] = []

    def __getattr__(self, name: str) -> Any:
        real = getattr(self._store, name)
        if name != self._method:
            return real

        def call(items: Sequence[Any], **options: Any) -> list[Any]:
            self.calls.append(list(items))
            if not self._faults:
                return real(items, **options)  # type: ignore[no-any-return]
            fault = self._faults.pop(0)
            results = [fault(item) for item in items]
            fine = [item for item, result in zip(items, results, strict=True) if result is None]
            done = iter(real(fine, **options))
            return [next(done) if result is None else result for result in results]

        return call


def refuse_if(test: Callable[[Any], bool]) -> Callable[[Any], Any]:
    return lambda item: StoreRefusedError("too large") if test(item) else None


# Batching


class _Gather(BatchingDoFn[int]):
    def __init__(self, size: BatchSize) -> None:
        super().__init__("Gather", size)

    def size_of(self, element: int) -> int:
        return element

    def flush(self, batch: list[int]) -> list[list[int]]:
        return [batch]


def at_one(element: int) -> WindowedValue:
    return window.GlobalWindows.windowed_value(element, 1)


@given(
    elements=st.lists(st.integers(1, 60), max_size=40),
    count=st.integers(1, 10),
    size=st.integers(1, 100),
)
def test_batches_keep_order_and_limits(elements: list[int], count: int, size: int) -> None:
    gather = _Gather(BatchSize(count, size))
    gather.start_bundle()
    outputs = []
    for element in elements:
        outputs += list(gather.process(element, at_one(element)))
    outputs += list(gather.finish_bundle())
    batches = [output.value for output in outputs]
    assert [element for batch in batches for element in batch] == elements
    for batch in batches:
        assert 0 < len(batch) <= count
        assert sum(batch[:-1]) < size  # full with its last element, not before


def test_a_batch_is_of_one_window_and_keeps_its_time() -> None:
    with pipeline() as p:
        batches = (
            p
            | beam.Create([1, 2, 61, 62])
            | beam.Map(lambda n: window.TimestampedValue(n, n))
            | beam.WindowInto(window.FixedWindows(60))
            | beam.ParDo(_Gather(BatchSize(10, 1000)))
            | beam.Map(
                lambda batch, at=beam.DoFn.TimestampParam, w=beam.DoFn.WindowParam: (
                    batch,
                    int(at),
                    int(w.start),
                )
            )
        )
        assert_that(batches, equal_to([([1, 2], 2, 0), ([61, 62], 62, 60)]))


def test_a_failed_bundle_leaves_nothing_for_the_next() -> None:
    gather = _Gather(BatchSize(10, 1000))
    gather.start_bundle()
    list(gather.process(1, at_one(1)))
    gather.start_bundle()
    assert list(gather.finish_bundle()) == []


# WriteAttempt


def test_of_two_versions_in_a_batch_the_newest_is_written(store: SqliteStore) -> None:
    older = Event("u1", "b1", "c1", "a1", 1_600_000_000_000, (1.0,))
    newer = Event("u1", "b1", "c1", "a1", 1_600_000_000_001, (2.0,))
    result = write_attempts(store, [scored(older), scored(newer), scored(older)], NOW)
    assert (result.written, result.unchanged, len(result.assessed)) == (1, 2, 3)
    assert all(assessed.read is None for assessed in result.assessed)
    again = write_attempts(store, [scored(newer), scored(older)], NOW)
    assert (again.written, again.unchanged) == (0, 2)
    assert all(assessed.read is not None for assessed in again.assessed)


def test_a_refused_attempt_is_one_events_dead_letter(store: SqliteStore) -> None:
    """Where the store refuses the newest version, the one before has its turn."""
    older = scored(Event("u1", "b1", "c1", "a1", 1_600_000_000_000, (1.0,)), offset=1)
    newer = scored(Event("u1", "b1", "c1", "a1", 1_600_000_000_001, (2.0,)), offset=2)
    other = scored(Event("u2", "b1", "c1", "a1", 1_600_000_000_000, (3.0,)), offset=3)
    faulty = Faulty(
        store,
        "write_attempts",
        [refuse_if(lambda write: write.attempt.total_score == 2.0)],
    )
    result = write_attempts(faulty, [older, newer, other], NOW)  # type: ignore[arg-type]
    assert [refusal.record.offset for refusal in result.refused] == [2]
    assert result.refused[0] == Refusal(newer.record, "WriteAttempt", "too large")
    assert [assessed.record.offset for assessed in result.assessed] == [1, 3]
    assert (result.written, result.unchanged) == (2, 0)
    reads = store.read_attempts([older.key.activity, other.key.activity])
    assert [r.attempts[0].total_score for r in reads if isinstance(r, AttemptsRead)] == [1.0, 3.0]


def test_a_repeated_try_has_a_greater_time_and_the_others_are_not_repeated(
    store: SqliteStore,
) -> None:
    events = [scored(Event(f"u{n}", "b1", "c1", "a1", 1_600_000_000_000, (1.0,))) for n in (1, 2)]

    def time_out(write: Any) -> Any:
        return StoreTransientError("timed out") if write.attempt.user_id == "u2" else None

    faulty = Faulty(store, "write_attempts", [time_out, time_out])
    write_attempts(faulty, events, AGAIN, digits=7)  # type: ignore[arg-type]
    tries = [[(w.attempt.user_id, w.write_us % 1000) for w in call] for call in faulty.calls]
    assert tries == [[("u1", 7), ("u2", 7)], [("u2", 8)], [("u2", 9)]]


def test_no_two_tries_have_one_time_however_many_there_are(store: SqliteStore) -> None:
    """A list that is written twice at one time would hold its elements twice."""
    event = scored(Event("u1", "b1", "c1", "a1", 1_600_000_000_000, (1.0,)))
    faulty = Faulty(store, "write_attempts", [lambda _: StoreTransientError("away")] * 1_100)
    with pytest.raises(StoreTransientError, match="away"):
        write_attempts(faulty, [event], PATIENT, digits=950)  # type: ignore[arg-type]
    times = [write.write_us for (write,) in faulty.calls]
    assert len(times) == len(set(times)) == MAX_TRIES
    assert {us // 1000 for us in times} == {1_600_000_000_000}
    assert times[1] == times[0] + 1

    expected = ActivityAgg(event.key.activity, 5_000_000, {"score:c1": 1.0}, ["a"])
    drifts = find_drift(store, [expected], METRICS, NOW)
    faulty = Faulty(store, "write_aggregates", [lambda _: StoreTransientError("away")] * 1_100)
    with pytest.raises(StoreTransientError, match="away"):
        write_drift(faulty, drifts, PATIENT, prune=False, digits=950)  # type: ignore[arg-type]
    times = [update.t_us for (update,) in faulty.calls]
    assert len(times) == len(set(times)) == MAX_TRIES
    assert (min(times), max(times)) == (4_999_000, 4_999_999)


def test_a_store_that_stays_away_raises(store: SqliteStore) -> None:
    away = [lambda _: StoreTransientError("away")] * 3
    faulty = Faulty(store, "write_attempts", away)
    with pytest.raises(StoreTransientError, match="away"):
        write_attempts(faulty, [scored(ANY)], NOW)  # type: ignore[arg-type]
    assert len(faulty.calls) == 1


def test_a_wrong_setting_is_not_waited_for() -> None:
    def open_it() -> None:
        calls.append(1)
        raise AddressError("no such keyspace")

    calls: list[int] = []
    with pytest.raises(AddressError):
        AGAIN.call(open_it)
    assert calls == [1]


# FetchBestScore


def _read(t_us: int, *scores: float) -> AttemptsRead:
    attempts = [StoredAttempt("c1", f"a{n}", 1, score, 5.0) for n, score in enumerate(scores)]
    return AttemptsRead(t_us, attempts)


def test_a_brought_read_serves_only_where_every_event_has_one(store: SqliteStore) -> None:
    key = AssessmentKey("do_1", "u1", "b1", "c1")
    brought = AssessedEvent(key, record(ANY), _read(5, 1.0), 1)
    later = AssessedEvent(key, record(ANY), _read(6, 1.0, 2.0), 1)
    fresh = AssessedEvent(key, record(ANY), None)
    write_attempts(store, [scored(Event("u1", "b1", "c1", "a9", 1_600_000_000_000, (9.0,)))], NOW)
    (found,) = fetch_best_scores(store, [brought, later], NOW)
    assert (found.t_us, found.best["c1"].score) == (6, 2.0)
    (found,) = fetch_best_scores(store, [brought, fresh, later], NOW)
    assert found.best["c1"].score == 9.0
    assert found.t_us > 1_000_000
    assert len(found.records) == 3


def test_no_two_aggregates_of_a_row_have_one_time(store: SqliteStore) -> None:
    """Where a batch ends between events that share a read: at equal times a list is doubled."""
    events = [scored(replace(ANY, attempt=f"a{n}"), n) for n in range(4)]
    write_attempts(store, events, NOW)
    assessed = write_attempts(store, events, NOW).assessed
    assert all(one.read is not None for one in assessed)
    batches = [fetch_best_scores(store, part, NOW) for part in (assessed[:2], assessed[2:])]
    first, second = (best for (best,) in batches)
    assert first.t_us != second.t_us
    (together,) = fetch_best_scores(store, assessed, NOW)
    assert together.t_us == assessed[0].read.t_us  # type: ignore[union-attr]


def test_only_the_assessments_of_the_events_are_computed(store: SqliteStore) -> None:
    events = [
        Event("u1", "b1", content, "a1", 1_600_000_000_000, (1.0,)) for content in ("c1", "c2")
    ]
    assessed = write_attempts(store, [scored(event) for event in events], NOW).assessed
    (both,) = fetch_best_scores(store, assessed, NOW)
    assert set(both.best) == {"c1", "c2"}
    (one,) = fetch_best_scores(store, assessed[:1], NOW)
    assert (set(one.best), len(one.details or [])) == ({"c1"}, 2)


# WriteAgg


def test_a_timed_out_aggregate_is_computed_again(store: SqliteStore) -> None:
    first = write_attempts(store, [scored(ANY)], NOW).assessed
    updates = [merge_agg(best) for best in fetch_best_scores(store, first, NOW)]
    better = Event("u1", "b1", "c1", "a2", 1_600_000_000_000, (4.0,))

    def meanwhile(_: Any) -> Any:
        write_attempts(store, [scored(better)], NOW)
        return StoreTransientError("timed out")

    faulty = Faulty(store, "write_aggregates", [meanwhile])
    write_aggregates(faulty, updates, METRICS, AGAIN)  # type: ignore[arg-type]
    (stale,), (fresh,) = faulty.calls
    assert (stale.metrics["score:c1"], fresh.metrics["score:c1"]) == (1.0, 4.0)
    assert fresh.t_us > stale.t_us


def test_a_refused_aggregate_makes_dead_letters_of_its_own_events(store: SqliteStore) -> None:
    events = [
        scored(Event(f"u{n}", "b1", "c1", "a1", 1_600_000_000_000, (1.0,)), n) for n in (1, 2)
    ]
    assessed = write_attempts(store, events, NOW).assessed
    updates = [merge_agg(best) for best in fetch_best_scores(store, assessed, NOW)]
    faulty = Faulty(
        store, "write_aggregates", [refuse_if(lambda update: update.key.user_id == "u1")]
    )
    result = write_aggregates(faulty, updates, METRICS, NOW)  # type: ignore[arg-type]
    assert [(r.record.offset, r.stage, r.reason) for r in result.refused] == [
        (1, "WriteAgg", "too large")
    ]
    assert [(p.key.user_id, p.events) for p in result.processed] == [("u2", 1)]
    assert result.written == 1


def test_an_event_without_answers_and_attempts_writes_nothing(store: SqliteStore) -> None:
    empty = Event("u1", "b1", "c1", "a1", 1_600_000_000_000, ())
    assessed = write_attempts(store, [scored(empty)], NOW).assessed
    updates = [merge_agg(best) for best in fetch_best_scores(store, assessed, NOW)]
    result = write_aggregates(store, updates, METRICS, NOW)
    assert (result.written, len(result.processed)) == (0, 1)
    assert result.processed[0].certificate_attempt_id is None


# The composites, as another pipeline uses them


def test_the_stages_can_be_used_by_another_pipeline(tmp_path: Path) -> None:
    config = StoreConfig(f"sqlite:{tmp_path / 'scores.db'}")
    letters = tmp_path / "letters.jsonl"
    good = SourceRecord(ANY.message(), "events", 0, 0)
    bad = SourceRecord(b"{}", "events", 0, 1)
    with pipeline() as p:
        parsed = p | beam.Create([good, bad]) | ParseEvent()
        _ = parsed.refused | WriteDeadLetters(str(letters))
        attempts = parsed.accepted | ScoreAttempt()
        written = attempts.accepted | WriteAttempt(config)
        best = written.accepted | FetchBestScore(config)
        done = best | MergeAgg(("score",)) | WriteAgg(config, metrics=("score",))
        assert_that(
            done.accepted | beam.Map(lambda one: tuple(one.key)),
            equal_to(
                [
                    ("do_1", "u1", "b1"),
                ]
            ),
        )
    store = SqliteStore(str(tmp_path / "scores.db"))
    (row,) = store.read_aggregates([AssessmentKey("do_1", "u1", "b1", "c1").activity])
    store.close()
    assert not isinstance(row, Exception)
    assert row.agg == {"score:c1": 1}
    (letter,) = letters.read_text().splitlines()
    assert json.loads(letter)["metadata"]["offset"] == 1
