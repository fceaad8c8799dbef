"""Properties of the event: what is taken, what is refused, and that nothing else can happen."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from group_scores.scores import InvalidEventError, parse_event, score_attempt
from group_scores.scores import event as event_module
from tests import event_values as ev
from tests import naive
from tests.naive_event import read_message

RECORDED = Path(__file__).parents[3] / "shared" / "fixtures" / "events"
SEEDS = [json.loads(path.read_bytes()) for path in sorted(RECORDED.glob("*.json"))] or [
    ev.event(ev.answer(resvalues=[{"1": "one"}], params=[{"answer": "1"}], title="?", duration=2))
]


def outcome(data: bytes) -> str:
    """What the pipeline makes of a message: the field it is refused for, or the attempt's row.

    Fails on any error but InvalidEventError. Text, so that 1 and 1.0, 0.0 and -0.0 differ.
    """
    try:
        event = parse_event(data)
        return repr((event, score_attempt(event)))
    except InvalidEventError as error:
        refused = error
    assert refused.reason.encode(), "a reason has to be there, and to be writable"
    assert refused.counted_as in event_module.FIELDS
    return f"refused for {refused.field}"


def by_typed_decoder(data: bytes) -> str | None:
    """The outcome by the typed decoder alone; None where it does not take the message."""
    try:
        event = event_module._decode(data)
    except (ValueError, RecursionError):
        return None
    return checked(event)


def by_lenient_decoder(data: bytes) -> str:
    try:
        return checked(event_module.decode_leniently(data))
    except InvalidEventError as error:
        return f"refused for {error.field}"


def checked(event: Any) -> str:
    try:
        return repr(event_module._check(event))
    except InvalidEventError as error:
        return f"refused for {error.field}"


def check_all_ways(data: bytes) -> None:
    """Both decoders and the naive reading agree on one message."""
    whole = outcome(data)
    typed, lenient = by_typed_decoder(data), by_lenient_decoder(data)
    assert typed in (None, lenient)
    naive_field = naive.refusal(data)
    assert whole.startswith("refused") == (naive_field is not None)
    if naive_field is None:
        check_row(data)


def check_row(data: bytes) -> None:
    """The attempt of a valid message equals the naive one, column by column."""
    (user, course, batch, content), row = read_message(data)
    event = parse_event(data)
    assert event.key == (course, user, batch, content)
    attempt = score_attempt(event)
    if row is None:
        assert attempt is None
        return
    assert attempt is not None
    assert {
        "user_id": attempt.user_id,
        "course_id": attempt.course_id,
        "batch_id": attempt.batch_id,
        "content_id": attempt.content_id,
        "attempt_id": attempt.attempt_id,
        "last_attempted_on": attempt.last_attempted_on_ms,
        "total_score": attempt.total_score,
        "total_max_score": attempt.total_max_score,
        "grand_total": attempt.grand_total,
        "question": [
            {
                "id": question.id,
                "assess_ts": question.assess_ts_ms,
                "max_score": question.max_score,
                "score": question.score,
                "type": question.type,
                "title": question.title,
                "resvalues": question.resvalues,
                "params": question.params,
                "description": question.description,
                "duration": float(question.duration),
            }
            for question in attempt.questions
        ],
    } == row


# ---------------------------------------------------------------- what keeps the rules


@given(ev.messages())
def test_an_event_that_keeps_the_rules_is_taken_whatever_its_optional_and_unknown_fields_hold(
    data: bytes,
) -> None:
    parse_event(data)
    check_all_ways(data)


@given(ev.messages(least=1))
def test_scoring_equals_the_naive_recomputation(data: bytes) -> None:
    check_all_ways(data)


@given(ev.events(least=1, plain=True), st.integers(1, 8))
def test_optional_fields_of_a_wrong_type_are_absent_and_counted(
    valid: dict[str, Any], wrong: int
) -> None:
    without = parse_event(ev.message(valid))
    assert without.fields_ignored == 0
    edata = valid["events"][0]["edata"]
    edata["item"] |= {"type": wrong, "title": ["x"], "desc": True, "params": "x"}
    edata |= {"duration": "2", "resvalues": {"1": "one"}}
    strange = parse_event(ev.message(valid))
    assert strange.fields_ignored == 6
    assert strange.answers == without.answers


# ---------------------------------------------------------------- what breaks a rule

_BREAKAGES = ev.breakages()


@given(ev.events(least=1, plain=True), st.sampled_from(_BREAKAGES), st.data())
def test_whatever_breaks_a_rule_is_refused_by_the_name_of_its_field(
    valid: dict[str, Any], breakage: ev.Breakage, data: st.DataObject
) -> None:
    index = data.draw(st.integers(0, len(valid["events"]) - 1))
    broken, field = ev.broken(valid, breakage, index)
    with pytest.raises(InvalidEventError) as refused:
        parse_event(broken)
    assert refused.value.field == field
    assert str(refused.value) == f"{field}: {refused.value.reason}"
    assert naive.refusal(broken) is not None


@given(st.sampled_from(ev.KEY_LIMITS), st.integers(0, 200), st.sampled_from("aé€😀"))
def test_a_key_that_is_too_long_is_refused_and_one_at_the_limit_is_not(
    limit: tuple[dict[str, int], str], over: int, letter: str
) -> None:
    sizes, longest = limit

    def of(extra: int) -> bytes:
        wanted = {name: size + (extra if name == longest else 0) for name, size in sizes.items()}
        ids = {name: text_of(letter, size) for name, size in wanted.items()}
        return ev.message(ev.event(**ids))

    parse_event(of(0))
    assert naive.refusal(of(0)) is None
    with pytest.raises(InvalidEventError) as refused:
        parse_event(of(1 + over))
    assert longest in refused.value.field
    assert naive.refusal(of(1 + over)) is not None


def text_of(letter: str, size: int) -> str:
    """A text that takes `size` bytes as UTF-8, of that letter as far as it goes."""
    number, rest = divmod(size, len(letter.encode()))
    return letter * number + "x" * rest


# ---------------------------------------------------------------- anything at all


@given(st.binary(max_size=200))
@example(b"")
@example(b"null")
@example(b"\xef\xbb\xbf{}")
@example(b"\x00")
@example("{}".encode("utf-16"))
def test_arbitrary_bytes_are_refused_and_nothing_else_is_raised(data: bytes) -> None:
    assert outcome(data).startswith("refused")
    check_all_ways(data)


@given(ev.any_json, st.booleans())
@example(ev.Literal("NaN"), False)
@example(ev.Literal("[" * 100_000), False)
@example(ev.Literal("[" * 100_000 + "]" * 100_000), False)
@example(ev.Literal('{"a":' * 100_000 + "1" + "}" * 100_000), False)
@example(ev.Pairs([("\ud800", 1)]), False)
def test_arbitrary_json_is_refused_and_nothing_else_is_raised(value: Any, ascii_only: bool) -> None:
    check_all_ways(ev.message(value, ascii_only))


@given(st.data())
def test_a_recorded_event_with_any_of_its_values_exchanged(data: st.DataObject) -> None:
    event = json.loads(json.dumps(data.draw(st.sampled_from(SEEDS))))
    for _ in range(data.draw(st.integers(1, 2))):
        event = exchange(event, data)
    check_all_ways(ev.message(event, data.draw(st.booleans())))


def exchange(tree: Any, data: st.DataObject, depth: int = 0) -> Any:
    """Put anything in the place of a value somewhere in the tree, or take it out, or repeat it."""
    if isinstance(tree, ev.Pairs):
        return tree
    if not tree or not isinstance(tree, dict | list) or (depth and not data.draw(st.booleans())):
        return data.draw(ev.any_json)
    if isinstance(tree, list):
        index = data.draw(st.integers(0, len(tree) - 1))
        tree[index] = exchange(tree[index], data, depth + 1)
        return tree
    name = data.draw(st.sampled_from(list(tree)))
    what = data.draw(st.sampled_from(["exchange", "exchange", "remove", "repeat", "add"]))
    if what == "remove":
        return {key: value for key, value in tree.items() if key != name}
    if what == "repeat":
        return ev.Pairs([*tree.items(), (name, data.draw(ev.any_json))])
    if what == "add":
        return ev.Pairs([*tree.items(), (data.draw(ev.keys), data.draw(ev.any_json))])
    return tree | {name: exchange(tree[name], data, depth + 1)}


@given(st.sampled_from(SEEDS), st.data())
def test_a_recorded_event_with_some_of_its_bytes_exchanged(
    seed: dict[str, Any], data: st.DataObject
) -> None:
    written = ev.message(seed)
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(written)))
        end = start + data.draw(st.integers(0, 3))
        new = data.draw(st.sampled_from([b"", b'"', b"\\", b"{", b"]", b"\x00", b"\xff", b"1e999"]))
        written = written[:start] + new + written[end:]
    check_all_ways(written)
