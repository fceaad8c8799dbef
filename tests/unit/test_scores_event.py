"""Each rule of the event by example: what is taken, and what is taken as absent."""

from __future__ import annotations

from typing import Any

import pytest

from group_scores.scores import AssessEvent, AssessmentKey, parse_event
from group_scores.scores.event import Answer
from tests import event_values as ev
from tests import naive


def parsed(event: Any) -> AssessEvent:
    data = ev.message(event)
    assert naive.refusal(data) is None
    return parse_event(data)


def only_answer(**fields: Any) -> Answer:
    event = parsed(ev.event(ev.answer(**fields)))
    assert event.fields_ignored == 0
    return event.answers[0]


# ---------------------------------------------------------------- what is taken


def test_every_field_has_its_place() -> None:
    event = parsed(
        ev.event(
            ev.answer(
                "question",
                ets=1_568_891_735_461,
                score=1.5,
                maxscore=2,
                type="mcq",
                title="Which?",
                desc="One of four.",
                resvalues=[{"1": "one"}],
                params=[{"1": "one"}, {"answer": {"correct": ["1"]}}],
                duration=2.5,
            ),
            courseId="course",
            batchId="batch",
            userId="user",
            contentId="content",
            attemptId="attempt",
            assessmentTs=1_568_891_729_576,
        )
    )
    assert event == AssessEvent(
        course_id="course",
        user_id="user",
        batch_id="batch",
        content_id="content",
        attempt_id="attempt",
        assessment_ts_ms=1_568_891_729_576,
        answers=[
            Answer(
                item_id="question",
                ets_ms=1_568_891_735_461,
                score=1.5,
                max_score=2.0,
                type="mcq",
                title="Which?",
                description="One of four.",
                resvalues=[{"1": "one"}],
                params=[{"1": "one"}, {"answer": '{"correct":["1"]}'}],
                duration=2.5,
            )
        ],
        fields_ignored=0,
    )
    assert event.key == AssessmentKey("course", "user", "batch", "content")
    assert event.key.activity.context_id == "cb:batch"


def test_optional_fields_may_be_missing_or_null() -> None:
    bare = only_answer()
    assert (bare.type, bare.title, bare.description) == (None, None, None)
    assert (bare.resvalues, bare.params, bare.duration) == (None, None, 0)
    optional = ("type", "title", "desc", "resvalues", "params", "duration")
    assert only_answer(**dict.fromkeys(optional)) == bare


@pytest.mark.parametrize("nothing", [None, [], ev.MISSING])
def test_an_event_without_answers_is_an_event(nothing: Any) -> None:
    event = ev.event(events=nothing)
    if nothing is ev.MISSING:
        del event["events"]
    assert parsed(event).answers == []


@pytest.mark.parametrize(
    ("value", "time_ms"),
    [
        (1, 1),
        (1_568_891_729_576.0, 1_568_891_729_576),
        (ev.Literal("1.568891729576e12"), 1_568_891_729_576),
        (ev.Literal("1568891729576.000"), 1_568_891_729_576),
        (ev.MAX_TIME_MS, ev.MAX_TIME_MS),
        (4_102_444_800_000, 4_102_444_800_000),  # a device whose clock is decades ahead
    ],
)
def test_a_whole_number_above_zero_is_a_time(value: Any, time_ms: int) -> None:
    event = parsed(ev.event(ev.answer(ets=value), assessmentTs=value))
    assert (event.assessment_ts_ms, event.answers[0].ets_ms) == (time_ms, time_ms)
    assert type(event.assessment_ts_ms) is int
    assert type(event.answers[0].ets_ms) is int


@pytest.mark.parametrize(
    ("score", "exact"),
    [
        (0, 0.0),
        (-1.5, -1.5),
        (ev.Literal("0.330"), 0.33),
        (ev.Literal("1e-400"), 0.0),
        (1.7976931348623157e308, 1.7976931348623157e308),
        (2**53 + 1, 9007199254740992.0),
        (ev.Literal("1" + "0" * 308), 1e308),
    ],
)
def test_any_finite_number_is_a_score(score: Any, exact: float) -> None:
    assert only_answer(score=score).score == exact


@pytest.mark.parametrize("maximum", [0, ev.Literal("-0.0"), 0.5, 1e300])
def test_a_maximum_may_be_zero(maximum: Any) -> None:
    assert only_answer(maxscore=maximum).max_score == float(maximum)


@pytest.mark.parametrize(
    "value",
    ["é", "\u00a0x", "😀", "x\u0000", "\u200b", " spaced ", '"', "\\", ev.Literal('"\\u0061"')],
)
def test_any_text_that_is_not_blank_is_an_id(value: str) -> None:
    event = parsed(ev.event(ev.answer(value), **dict.fromkeys(ev.IDS, value)))
    expected = "a" if isinstance(value, ev.Literal) else value
    assert event.user_id == event.attempt_id == event.answers[0].item_id == expected


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("text", "text"),
        ("", ""),
        (None, "null"),
        (True, "true"),
        (5, "5"),
        (ev.Literal("1.50"), "1.5"),
        (ev.Literal("1e5"), "100000.0"),
        (ev.Literal("9" * 300), "9" * 300),
        ([], "[]"),
        ({}, "{}"),
        ({"b": [1, " ", None], "a": {"é": "ü"}}, '{"b":[1," ",null],"a":{"é":"ü"}}'),
        (['\n\u0000"\\/'], '["\\n\\u0000\\"\\\\/"]'),
    ],
)
def test_a_value_of_a_map_that_is_no_text_is_its_json_text(value: Any, text: str) -> None:
    found = only_answer(resvalues=[{"1": value}], params=[{"1": value}, {}])
    assert found.resvalues == [{"1": text}]
    assert found.params == [{"1": text}, {}]


@pytest.mark.parametrize("value", [0, 2, 2.5, -1, 1e300, ev.Literal("0.1"), 2**62, 2**64])
def test_any_finite_number_is_a_duration(value: Any) -> None:
    assert only_answer(duration=value).duration == float(value)


def test_a_duration_that_is_a_whole_number_stays_exact() -> None:
    assert only_answer(duration=2**53 + 1).duration == 2**53 + 1


# ---------------------------------------------------------------- optional fields of a wrong type

UNSTORABLE: list[Any] = [
    "\ud800",
    ev.Literal('"\udcff"'),
    {"\ud800": 1},
    {"1": ["\ud800"]},
    {"1": ev.Literal("1e999")},
    {"1": [ev.Literal("9" * 400)]},
    {"1": ev.Literal("9" * 5000)},
]


@pytest.mark.parametrize("value", [5, 1.5, True, [], {}, ["x"], *UNSTORABLE])
@pytest.mark.parametrize("field", ["type", "title", "desc"])
def test_a_text_of_a_wrong_type_is_absent_and_counted(field: str, value: Any) -> None:
    event = parsed(ev.event(ev.answer(**{field: value})))
    assert event.answers == [only_answer()]
    assert event.fields_ignored == 1


@pytest.mark.parametrize(
    "value",
    ["", "x", 5, True, {}, {"1": "one"}, [None], [5], ["x"], [[]], [{}, "x"]]
    + [[value] for value in UNSTORABLE],
)
@pytest.mark.parametrize("field", ["resvalues", "params"])
def test_a_list_of_maps_of_a_wrong_type_is_absent_and_counted(field: str, value: Any) -> None:
    event = parsed(ev.event(ev.answer(**{field: value})))
    assert event.answers == [only_answer()]
    assert event.fields_ignored == 1


@pytest.mark.parametrize(
    "value", ["2", "", True, [], {}, *UNSTORABLE, ev.Literal("1e999"), ev.Literal("9" * 400)]
)
def test_a_duration_of_a_wrong_type_is_zero_and_counted(value: Any) -> None:
    event = parsed(ev.event(ev.answer(duration=value)))
    assert event.answers == [only_answer()]
    assert event.fields_ignored == 1


def test_every_field_that_is_ignored_is_counted() -> None:
    strange = ev.answer(type=1, title=2, desc=3, params=4, resvalues=5, duration="6")
    assert parsed(ev.event(strange, strange)).fields_ignored == 12


# ---------------------------------------------------------------- unknown fields

UNKNOWN: list[Any] = [
    "\ud800",
    ev.Literal('"\udcff"'),
    ev.Literal("1e999"),
    ev.Literal("9" * 5000),
    ev.Literal("[" * 200 + "]" * 200),
    ev.Pairs([("\ud800", "\ud800")]),
    ev.Pairs([("a", 1), ("a", 2)]),
    None,
]


@pytest.mark.parametrize("value", UNKNOWN)
@pytest.mark.parametrize("name", ["unknown", "", "\ud800", ev.Literal('"\udcff"')])
@pytest.mark.parametrize("place", ["event", "telemetry", "edata", "item"])
def test_an_unknown_field_is_no_error_whatever_it_holds(place: str, name: str, value: Any) -> None:
    event = ev.event(ev.answer())
    telemetry = event["events"][0]
    places = {
        "event": event,
        "telemetry": telemetry,
        "edata": telemetry["edata"],
        "item": telemetry["edata"]["item"],
    }
    places[place][name] = value
    assert parsed(event) == parsed(ev.event(ev.answer()))
