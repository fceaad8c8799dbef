"""Each rule of the event by example: what is refused, for which field and in which words."""

from __future__ import annotations

import pickle
from typing import Any

import pytest

from group_scores.scores import InvalidEventError, parse_event
from group_scores.scores.event import FIELDS
from tests import event_values as ev
from tests import naive


def refusal(event: Any) -> InvalidEventError:
    data = event if isinstance(event, bytes) else ev.message(event)
    with pytest.raises(InvalidEventError) as refused:
        parse_event(data)
    assert naive.refusal(data) is not None
    return refused.value


def test_of_a_repeated_field_the_last_one_counts() -> None:
    fields = list(ev.event(ev.answer()).items())
    before = ev.Pairs([("userId", "first"), ("userId", 5), *fields])
    assert parse_event(ev.message(before)).user_id == "user"
    after = ev.Pairs([*fields, ("userId", "last")])
    assert parse_event(ev.message(after)).user_id == "last"
    assert refusal(ev.Pairs([*fields, ("userId", 5)])).field == "userId"


_BREAKAGES = ev.breakages()


@pytest.mark.parametrize("breakage", _BREAKAGES, ids=[each.title for each in _BREAKAGES])
def test_a_broken_rule_is_refused_by_the_name_of_the_field(breakage: ev.Breakage) -> None:
    valid = ev.event(ev.answer("q1"), ev.answer("q2"))
    for index in (0, 1):
        data, field = ev.broken(valid, breakage, index)
        error = refusal(data)
        assert error.field == field
        assert error.counted_as == field.replace(f"[{index}]", "").replace(".", "_")
        assert error.counted_as in FIELDS


@pytest.mark.parametrize("depth", [2, 300, 600])
def test_a_list_in_the_place_of_an_answer_is_refused_however_deep_it_is(depth: int) -> None:
    lists = ev.Literal("[" * depth + "]" * depth)
    assert refusal(ev.event(events=lists)).field == "events[0]"


def test_an_answer_that_would_not_count_has_to_keep_the_rules_too() -> None:
    late, early = ev.answer("q1", ets=2), ev.answer("q1", ets=1, score="NaN")
    assert refusal(ev.event(late, early)).field == "events[1].edata.score"


@pytest.mark.parametrize(("sizes", "longest"), ev.KEY_LIMITS)
def test_a_key_may_take_65535_bytes_and_no_more(sizes: dict[str, int], longest: str) -> None:
    ids = {name: "x" * size for name, size in sizes.items()}
    assert parse_event(ev.message(ev.event(**ids))).answers == []
    error = refusal(ev.event(**ids | {longest: ids[longest] + "x"}))
    assert longest in error.field
    assert error.counted_as == "key"
    assert "65536 bytes" in error.reason


def test_a_key_is_measured_in_bytes() -> None:
    limit = {"batchId": "€" * 21_844, "userId": "u", "contentId": "c", "attemptId": "a"}
    assert parse_event(ev.message(ev.event(**limit))).answers == []
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
    assert error.counted_as == "json"
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
