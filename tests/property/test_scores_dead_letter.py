"""Properties of the dead letter: what came in is kept whole, and no replay makes it grow."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from group_scores.scores import InvalidEventError, SourceRecord
from group_scores.scores.dead_letter import SOURCE_NAME, cut_dead_letter, dead_letter, unwrap
from tests import event_values as ev

any_text = st.text(max_size=20)  # lone surrogates included: a reason may quote, a path may be odd
records = st.builds(
    SourceRecord,
    value=st.binary(max_size=60) | st.builds(ev.message, ev.any_json, st.booleans()),
    topic=any_text,
    partition=st.none() | st.integers(0, 9),
    offset=st.integers(0, 2**63 - 1),
)
OURS = ("metadata", "validation_error", "src", "stage", "topic", "partition", "offset")
REPLAYED = ("dev.telemetry.assess.failed", 3, 77)


def strict(letter: bytes) -> dict[str, Any]:
    """Read a dead letter as its consumers do: one line, UTF-8, JSON without NaN, an object."""
    assert b"\n" not in letter
    assert b"\r" not in letter

    def refuse(name: str) -> None:
        raise AssertionError(name)

    # Numbers stay text: an integer may be longer than what int() takes.
    read = json.loads(letter.decode(), parse_constant=refuse, parse_int=str, parse_float=str)
    assert isinstance(read, dict)
    return read


def printable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()


def replay(letter: bytes) -> SourceRecord:
    """The record that the pipeline would refuse when it reads a dead letter again."""
    record = SourceRecord(letter, *REPLAYED)
    return unwrap(record) or record


# ---------------------------------------------------------------- objects

names = ev.texts | st.sampled_from(["userId", "raw", "\\/", "\ud800"])
spaces = st.sampled_from(["", " ", "\t "])
_values = ev.any_json.filter(lambda value: max(ev.json_text(value, True), default="") < "\udc80")


@st.composite
def members(draw: st.DrawFn) -> str:
    """A field of an object as it could stand in the text, any value and spacing."""
    name = ev.json_text(draw(names.filter(lambda name: name not in OURS)), draw(st.booleans()))
    value = ev.json_text(draw(_values), draw(st.booleans()))
    return f"{name}{draw(spaces)}:{draw(spaces)}{value}"


def object_of(parts: list[str], space: str) -> bytes:
    return f"{space}{{{space}{f'{space},{space}'.join(parts)}{space}}}{space}".encode()


@given(st.lists(members(), max_size=4), st.sampled_from(["", " ", "\r\n\t"]), any_text, any_text)
def test_every_field_of_an_object_is_kept_as_it_was_written(
    parts: list[str], space: str, reason: str, topic: str
) -> None:
    record = SourceRecord(object_of(parts, space), topic, 1, 2)
    letter = dead_letter(record, "ParseEvent", reason)
    metadata = {
        "validation_error": printable(reason),
        "src": SOURCE_NAME,
        "stage": "ParseEvent",
        "topic": printable(topic),
        "partition": "1",
        "offset": "2",
    }
    assert strict(letter)["metadata"] == metadata
    kept, _, _ = letter.decode().rpartition('"metadata":')
    assert kept == "{" + "".join(part + "," for part in parts)


@given(st.lists(members(), max_size=2), st.lists(members(), max_size=3))
def test_an_object_of_metadata_keeps_its_own_fields_and_gains_ours(
    parts: list[str], own: list[str]
) -> None:
    metadata = '"metadata":' + object_of(own, "").decode()
    value = object_of([*parts[:1], metadata, *parts[1:]], "")
    letter = dead_letter(SourceRecord(value, "t", 0, 1), "ParseEvent", "why")
    kept, _, ours = letter.decode().rpartition('"validation_error":')
    assert kept == "{" + "".join(f"{part}," for part in parts) + '"metadata":{' + "".join(
        f"{part}," for part in own
    )
    assert ours == (
        f'"why","src":"{SOURCE_NAME}","stage":"ParseEvent","topic":"t","partition":0,"offset":1}}}}'
    )


@given(st.lists(members(), max_size=2), _values.filter(lambda value: not isinstance(value, dict)))
def test_a_metadata_that_is_no_object_moves_to_its_original(parts: list[str], own: Any) -> None:
    assume(not isinstance(own, ev.Pairs))
    text = ev.json_text(own, True)
    assume(not text.startswith("{"))
    value = object_of([*parts, f'"metadata": {text}'], "")
    letter = dead_letter(SourceRecord(value, "t", 0, 1), "ParseEvent", "why")
    assert f'"metadata":{{"original":{text},"validation_error":"why",' in letter.decode()
    strict(letter)


@given(
    st.sampled_from(["validation_error", "src", "stage", "topic", "partition", "offset"]), _values
)
@example("src", "another job")
@example("topic", "\ud800")
def test_what_another_job_put_under_our_names_is_kept_as_the_original(name: str, own: Any) -> None:
    text = f'{{"{name}": {ev.json_text(own, True)}}}'
    letter = dead_letter(
        SourceRecord(b'{"metadata":%s}' % text.encode(), "t", 0, 1), "ParseEvent", "why"
    )
    metadata = strict(letter)["metadata"]
    if own != SOURCE_NAME:
        assert f'"original":{text}' in letter.decode()
    assert (metadata["validation_error"], metadata["src"]) == ("why", SOURCE_NAME)
    assert (metadata["topic"], metadata["partition"], metadata["offset"]) == ("t", "0", "1")


# ---------------------------------------------------------------- anything


@given(records, any_text)
@example(SourceRecord(b"{" * 100_000, "t", 0, 1), "why")
@example(SourceRecord(b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "t", 0, 1), "why")
@example(SourceRecord(b'{"a":1,"metadata":{},"metadata":{"b":2}}', "t", 0, 1), "why")
@example(SourceRecord(b"\xef\xbb\xbf{}", "t", 0, 1), "why")
@example(SourceRecord(b'{"a":"\xff"}', "t", 0, 1), "why")
@example(SourceRecord(b'{"a":NaN}', "t", 0, 1), "why")
def test_whatever_is_no_object_is_wrapped_whole(record: SourceRecord, reason: str) -> None:
    letter = dead_letter(record, "ParseEvent", reason)
    read = strict(letter)
    metadata = read["metadata"]
    assert metadata["validation_error"] == printable(reason)
    assert metadata["src"] == SOURCE_NAME
    if is_object(record.value):
        return
    assert set(read) <= {"raw", "encoding", "metadata"}
    back = unwrap(SourceRecord(letter, *REPLAYED))
    assert back is not None
    assert back.value == record.value
    if printable(record.topic) == record.topic:
        assert back == record


def is_object(value: bytes) -> bool:
    """Whether the value is a JSON object with one `metadata` at most: nothing to be wrapped."""
    names: list[str] = []

    def seen(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        names[:] = [name for name, _ in pairs]  # the outermost object is the last one
        return dict(pairs)

    def refuse(name: str) -> None:
        raise ValueError(name)

    try:
        tree = json.loads(
            value.decode(),
            object_pairs_hook=seen,
            parse_constant=refuse,
            parse_int=str,
            parse_float=str,
        )
    except (ValueError, RecursionError):
        return False
    return isinstance(tree, dict) and names.count("metadata") <= 1


@given(records, any_text)
@example(
    SourceRecord(
        b'{"a":"\\ud800","metadata":{"src":"AssessmentAggregator","topic":"\\ud800",'
        b'"partition":0,"offset":1}}',
        "t",
        0,
        1,
    ),
    "why",
)
@example(SourceRecord(b'{"metadata":{"src":"x","original":{"topic":1}}}', "t", 0, 1), "why")
@example(SourceRecord(b'{"a":1,"raw":"a field of the event"}', "t", 0, 1), "why")
def test_a_replayed_dead_letter_becomes_the_same_one_again(
    record: SourceRecord, reason: str
) -> None:
    letter = dead_letter(record, "ParseEvent", reason)
    again = replay(letter)
    if is_object(record.value) and strict(letter).keys() <= {"raw", "encoding", "metadata"}:
        return  # nothing but the fields of a wrapping: it cannot be told from one
    assert dead_letter(again, "ParseEvent", reason) == letter


@given(records)
def test_unwrapping_fails_in_no_other_way(record: SourceRecord) -> None:
    unwrapped = unwrap(record)
    assert unwrapped is None or isinstance(unwrapped, SourceRecord)


wrapping = st.fixed_dictionaries(
    {},
    optional={
        "raw": ev.any_json | st.just("{}"),
        "encoding": ev.any_json | st.just("base64"),
        "metadata": ev.any_json
        | st.fixed_dictionaries(
            {"src": st.just(SOURCE_NAME)},
            optional={
                "topic": ev.any_json | st.just("first"),
                "partition": ev.any_json | st.integers(0, 9),
                "offset": ev.any_json | st.integers(0, 9),
                "cut": ev.any_json,
                "size": ev.any_json,
                "original": ev.any_json,
                "stage": ev.any_json,
            },
        ),
    },
)


@given(wrapping)
def test_what_looks_like_a_dead_letter_is_one_or_is_not(letter: dict[str, Any]) -> None:
    record = SourceRecord(ev.message(letter), "t", 0, 1)
    try:
        unwrapped = unwrap(record)
    except InvalidEventError as error:
        reason = str(error)
        unwrapped = record
    else:
        reason = "why"
    rejected = unwrapped or record
    assert rejected.topic.encode()
    strict(dead_letter(rejected, "ParseEvent", reason))


# ---------------------------------------------------------------- too large


@given(st.binary(max_size=200), st.integers(1, 800), any_text, st.integers(16_384, 20_000))
@example("é".encode() * 100, 200, "why", 16_385)
@example("x😀".encode() * 50, 800, "why", 16_386)
@example(b"\x00" * 200, 400, "why", 16_384)
@example(b"\xff" * 200, 400, "why", 16_384)
@example(b"a" * 100, 400, "\x00" * 2_000, 16_384)
@example(b"a" * 100, 400, "\ud800" * 2_000, 16_384)
@example(b"a" * 100, 400, "x" * 100_000, 16_384)
def test_a_cut_dead_letter_keeps_to_the_limit_and_says_where_the_whole_is(
    part: bytes, times: int, reason: str, limit: int
) -> None:
    value = part * times
    record = SourceRecord(value, "topic", 4, 5)
    letter = cut_dead_letter(record, "ParseEvent", reason, limit)
    assert len(letter) <= limit
    read = strict(letter)
    metadata = read["metadata"]
    assert metadata["cut"] is True
    assert metadata["size"] == str(len(value))
    assert metadata["sha256"] == hashlib.sha256(value).hexdigest()
    assert (metadata["topic"], metadata["partition"], metadata["offset"]) == ("topic", "4", "5")
    assert printable(reason).startswith(metadata["validation_error"][:1000])
    with pytest.raises(InvalidEventError, match="topic, partition 4, offset 5"):
        unwrap(SourceRecord(letter, *REPLAYED))
    # What is kept is the start of the event, and not nothing.
    uncut = {**read, "metadata": {"src": SOURCE_NAME}}
    start = unwrap(SourceRecord(json.dumps(uncut).encode(), *REPLAYED))
    assert start is not None
    assert value.startswith(start.value)
    assert len(start.value) >= min(len(value), 1_000)
