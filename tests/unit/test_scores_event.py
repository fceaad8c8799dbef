"""Each rule of the event by example: what is taken, what is refused and in which words."""

from __future__ import annotations

import pickle
from typing import Any

import pytest

from group_scores.scores import AssessEvent, AssessmentKey, InvalidEventError, parse_event
from group_scores.scores.event import Answer
from tests import event_values as ev
from tests import naive


def parsed(event: Any) -> AssessEvent:
    data = ev.message(event)
    assert naive.refusal(data) is None
    return parse_event(data)


def refusal(event: Any) -> InvalidEventError:
    data = event if isinstance(event, bytes) else ev.message(event)
    with pytest.raises(InvalidEventError) as refused:
        parse_event(data)
    assert naive.refusal(data) is not None
    return refused.value


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


def test_of_a_repeated_field_the_last_one_counts() -> None:
    event = ev.event(ev.answer())
    assert parsed(ev.Pairs([("userId", "first"), ("userId", 5), *event.items()])).user_id == "user"
    twice = ev.Pairs([*event.items(), ("userId", "last")])
    assert parsed(twice).user_id == "last"
    assert refusal(ev.Pairs([*event.items(), ("userId", 5)])).field == "userId"


# ---------------------------------------------------------------- what is refused

_BREAKAGES = ev.breakages()


@pytest.mark.parametrize("breakage", _BREAKAGES, ids=[each.title for each in _BREAKAGES])
def test_a_broken_rule_is_refused_by_the_name_of_the_field(breakage: ev.Breakage) -> None:
    valid = ev.event(ev.answer("q1"), ev.answer("q2"))
    for index in (0, 1):
        data, field = ev.broken(valid, breakage, index)
        assert refusal(data).field == field


def test_an_answer_that_would_not_count_has_to_keep_the_rules_too() -> None:
    late, early = ev.answer("q1", ets=2), ev.answer("q1", ets=1, score="NaN")
    assert refusal(ev.event(late, early)).field == "events[1].edata.score"


@pytest.mark.parametrize(("sizes", "longest"), ev.KEY_LIMITS)
def test_a_key_may_take_65535_bytes_and_no_more(sizes: dict[str, int], longest: str) -> None:
    ids = {name: "x" * size for name, size in sizes.items()}
    assert parsed(ev.event(**ids)).answers == []
    error = refusal(ev.event(**ids | {longest: ids[longest] + "x"}))
    assert longest in error.field
    assert "65536 bytes" in error.reason


def test_a_key_is_measured_in_bytes() -> None:
    limit = {"batchId": "€" * 21_844, "userId": "u", "contentId": "c", "attemptId": "a"}
    assert parsed(ev.event(**limit)).answers == []
    assert "batchId" in refusal(ev.event(**limit | {"batchId": "€" * 21_845})).field


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "the message is not JSON"),
        (b"  ", "the message is not JSON"),
        (b"not JSON", "the message is not JSON"),
        (b'{"courseId":', "the message is not JSON"),
        (ev.message(ev.event())[:-1], "the message is not JSON"),
        (ev.message(ev.event()) + b"\x00", "the message is not JSON"),
        (ev.message(ev.event()) * 2, "the message is not JSON"),
        (b"\x00" + ev.message(ev.event()), "the message is not JSON"),
        (b"\xef\xbb\xbf" + ev.message(ev.event()), "BOM"),
        (ev.message(ev.event()).decode().encode("utf-16"), "nor is it UTF-8"),
        (b"\xff\xfe", "nor is it UTF-8"),
        (b"[]", "a JSON array, not a JSON object"),
        (b'"text"', "a JSON string, not a JSON object"),
        (b"5", "a number, not a JSON object"),
        (b"1e999", "a number, not a JSON object"),
        (b"true", "a boolean, not a JSON object"),
        (b"null", "null, not a JSON object"),
        (b"[" * 100_000 + b"]" * 100_000, "nested too deeply"),
        (ev.message(ev.event(unknown=ev.Literal("[" * 9_999 + "]" * 9_999))), "nested too deeply"),
        (ev.message(ev.event(unknown=ev.Literal("NaN"))), "NaN is not a JSON number"),
        (ev.message(ev.event(unknown=ev.Literal("-Infinity"))), "-Infinity is not a JSON number"),
        (ev.message(ev.event(ev.answer(score=ev.Literal("NaN")))), "NaN is not a JSON number"),
        (ev.message(ev.event(unknown=ev.Literal('"\x00"'))), "the message is not JSON"),
        (ev.message(ev.event(unknown=ev.Literal("01"))), "the message is not JSON"),
    ],
)
def test_what_is_no_json_object_is_refused_as_such(data: bytes, reason: str) -> None:
    error = refusal(data)
    assert error.field == ""
    assert reason in error.reason


@pytest.mark.parametrize(
    ("path", "value", "sentence"),
    [
        (("userId",), ev.MISSING, "userId: is missing"),
        (("userId",), 5, "userId: must be a string, not a number"),
        (("userId",), " ", "userId: must not be blank"),
        (
            ("userId",),
            "\ud800",
            "userId: must be text that UTF-8 can hold (no lone surrogate)",
        ),
        (
            ("assessmentTs",),
            "1568891729576",
            "assessmentTs: must be an integer, epoch ms, not a string",
        ),
        (("assessmentTs",), 0.5, "assessmentTs: must be a whole number of epoch ms, not 0.5"),
        (
            ("assessmentTs",),
            -1,
            f"assessmentTs: must be epoch ms from 1 to {ev.MAX_TIME_MS}, not -1",
        ),
        (("events",), {}, "events: must be a list of ASSESS telemetry, or null, not an object"),
        (("events", "[]"), None, "events[0]: must be an object, not null"),
        (
            ("events", "[]", "edata", "score"),
            "NaN",
            "events[0].edata.score: must be a number, not a string",
        ),
        (
            ("events", "[]", "edata", "score"),
            ev.Literal("1e999"),
            "events[0].edata.score: must be a finite number",
        ),
        (
            ("events", "[]", "edata", "item", "maxscore"),
            -1,
            "events[0].edata.item.maxscore: must be a finite number that is not negative",
        ),
        (("events", "[]", "edata", "item"), ev.MISSING, "events[0].edata.item: is missing"),
        (
            ("events", "[]", "edata", "item", "id"),
            True,
            "events[0].edata.item.id: must be a string, not a boolean",
        ),
    ],
)
def test_the_error_is_a_sentence_to_act_on(
    path: tuple[str, ...], value: Any, sentence: str
) -> None:
    data, _ = ev.broken(ev.event(ev.answer()), ev.Breakage(path, value, ""))
    assert str(refusal(data)) == sentence


def test_the_error_of_a_huge_number_is_short() -> None:
    huge = ev.Literal("9" * 4_000)
    assert len(str(refusal(ev.event(assessmentTs=huge)))) < 200


def test_the_error_can_be_pickled() -> None:
    error = InvalidEventError("userId", "must not be blank")
    again = pickle.loads(pickle.dumps(error))
    assert (again.field, again.reason, str(again)) == (error.field, error.reason, str(error))
