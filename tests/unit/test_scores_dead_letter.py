"""The dead letter by example: what it holds, what it keeps, and the way back."""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from group_scores.scores import InvalidEventError, SourceRecord
from group_scores.scores.dead_letter import cut_dead_letter, dead_letter, unwrap

RECORDED = Path(__file__).parents[3] / "shared" / "fixtures" / "events"
OURS = (
    '"validation_error":"userId: is missing","src":"AssessmentAggregator",'
    '"stage":"ParseEvent","topic":"dev.telemetry.assess","partition":2,"offset":1234'
)


def record(
    value: bytes,
    topic: str = "dev.telemetry.assess",
    partition: int | None = 2,
    offset: int = 1234,
) -> SourceRecord:
    return SourceRecord(value, topic, partition, offset)


def letter_of(value: bytes, reason: str = "userId: is missing") -> str:
    return dead_letter(record(value), "ParseEvent", reason).decode()


# ---------------------------------------------------------------- objects


@pytest.mark.parametrize(
    ("event", "kept"),
    [
        ("{}", ""),
        (" {\r\n} \n", ""),
        ('{"b":1,"a":2}', '"b":1,"a":2,'),
        ('{ "b" : 1.50 , "a" : [1, {"x": 1E5}] }', '"b" : 1.50,"a" : [1, {"x": 1E5}],'),
        ('{"a":\n[1,\r\n2]}', '"a":[1,2],'),
        (r'{"a":"line\nend\u0000\/\u00e9 é 😀"}', r'"a":"line\nend\u0000\/\u00e9 é 😀",'),
        (r'{"a":"\ud800","b":1.10}', r'"a":"\ud800","b":1.10,'),
        (r'{"\ud800":1}', r'"\ud800":1,'),
        ('{"a":1,"a":2}', '"a":1,"a":2,'),
        ('{"a":1e999,"b":-0}', '"a":1e999,"b":-0,'),
        ('{"a":' + "9" * 5000 + "}", '"a":' + "9" * 5000 + ","),
        ('{"raw":"x"}', '"raw":"x",'),
        ('{"a":"\u2028\x7f"}', '"a":"\u2028\x7f",'),
    ],
)
def test_an_object_keeps_its_text_and_gains_metadata(event: str, kept: str) -> None:
    assert letter_of(event.encode()) == f'{{{kept}"metadata":{{{OURS}}}}}'


@pytest.mark.parametrize(
    ("own", "merged"),
    [
        ("{}", ""),
        ('{"a": 1.0, "b":[ ]}', '"a": 1.0,"b":[ ],'),
        ("null", '"original":null,'),
        ('"text"', '"original":"text",'),
        ("[1, 2]", '"original":[1, 2],'),
        ('{"original":1}', '"original":1,'),
        # From another job, under names that are ours.
        ('{"src":"Other","a":1}', '"original":{"src":"Other","a":1},'),
        ('{"topic":"x","original":1}', '"original":{"topic":"x","original":1},'),
        ('{"partition":7}', '"original":{"partition":7},'),
        # From the job in use today: its reason gives way to the newer one.
        ('{"src":"AssessmentAggregator","validation_error":"old","a":1}', '"a":1,'),
    ],
)
def test_own_metadata_stays_beside_ours_or_moves_to_its_original(own: str, merged: str) -> None:
    event = f'{{"metadata":{own},"userId":5}}'
    assert letter_of(event.encode()) == f'{{"userId":5,"metadata":{{{merged}{OURS}}}}}'


@pytest.mark.skipif(not RECORDED.is_dir(), reason="no recorded events beside this")
def test_a_recorded_event_is_kept_to_the_letter() -> None:
    for path in sorted(RECORDED.iterdir()):
        event = path.read_bytes().strip()
        assert dead_letter(record(event), "ParseEvent", "userId: is missing") == (
            event[:-1] + f',"metadata":{{{OURS}}}}}'.encode()
        )


def test_a_file_has_no_partition() -> None:
    letter = dead_letter(record(b"{}", "events.jsonl", None, 0), "ParseEvent", "why")
    assert json.loads(letter)["metadata"] == {
        "validation_error": "why",
        "src": "AssessmentAggregator",
        "stage": "ParseEvent",
        "topic": "events.jsonl",
        "partition": None,
        "offset": 0,
    }


def test_a_reason_or_path_that_utf8_cannot_hold_is_escaped() -> None:
    letter = dead_letter(record(b"{}", "odd-\udcff.jsonl"), "ParseEvent", 'quotes "\ud800"\n')
    metadata = json.loads(letter)["metadata"]
    assert metadata["topic"] == "odd-\\udcff.jsonl"
    assert metadata["validation_error"] == 'quotes "\\ud800"\n'


# ---------------------------------------------------------------- anything else


@pytest.mark.parametrize(
    "text",
    [
        "",
        "not JSON",
        "[1]",
        "null",
        '"text"',
        '{"a":1',
        '{"a":1} x',
        '{"a":NaN}',
        '{"a":01}',
        "\ufeff{}",
        "{}\x00",
        "line\r\nend",
        "{" * 100_000,
        '{"metadata":1,"metadata":2}',
    ],
)
def test_what_is_no_object_is_wrapped_as_text(text: str) -> None:
    letter = letter_of(text.encode())
    assert "\n" not in letter
    assert json.loads(letter)["raw"] == text
    assert letter.endswith(f',"metadata":{{{OURS}}}}}')
    assert set(json.loads(letter)) == {"raw", "metadata"}
    assert unwrap(record(letter.encode(), "failed", 0, 7)) == record(text.encode())


@pytest.mark.parametrize("value", [b"\xff", b'{"a":"\xff"}', "{}".encode("utf-16"), b"\xc3"])
def test_what_is_no_utf8_is_wrapped_as_base64(value: bytes) -> None:
    letter = json.loads(letter_of(value))
    assert base64.b64decode(letter["raw"]) == value
    assert letter["encoding"] == "base64"
    assert unwrap(record(letter_of(value).encode(), "failed", 0, 7)) == record(value)


def test_a_json_object_that_is_nested_too_deeply_is_kept_whole() -> None:
    value = b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    assert unwrap(record(letter_of(value).encode())) == record(value)


# ---------------------------------------------------------------- again


@pytest.mark.parametrize(
    "value",
    [
        b'{"a":1}',
        b'{"a":"\\ud800"}',
        b'{"a":1,"raw":"a field of the event"}',
        b'{"raw":"x"}',
        b"not JSON",
        b"\xff",
        b"[]",
    ],
)
def test_a_dead_letter_that_is_refused_again_keeps_its_first_position(value: bytes) -> None:
    first = dead_letter(record(value), "ParseEvent", "why")
    again = record(first, "dev.telemetry.assess.failed", 0, 7)
    second = dead_letter(unwrap(again) or again, "ParseEvent", "why")
    assert second == first
    third = dead_letter(unwrap(again) or again, "WriteAttempt", "another reason")
    metadata = json.loads(third)["metadata"]
    assert metadata["validation_error"] == "another reason"
    assert metadata["stage"] == "WriteAttempt"
    assert (metadata["topic"], metadata["partition"], metadata["offset"]) == (
        "dev.telemetry.assess",
        2,
        1234,
    )


@pytest.mark.parametrize(
    "position",
    [
        {},
        {"topic": 5, "partition": 0, "offset": 1},
        {"topic": "t", "partition": "0", "offset": 1},
        {"topic": "t", "partition": 0},
        {"topic": "\ud800", "partition": 0, "offset": 1},
    ],
)
def test_a_dead_letter_without_a_position_takes_the_one_it_is_read_from(
    position: dict[str, Any],
) -> None:
    metadata = {"src": "AssessmentAggregator", **position}
    letter = json.dumps({"raw": "x", "metadata": metadata}).encode()
    assert unwrap(record(letter)) == record(b"x")
    again = json.loads(dead_letter(record(json.dumps({"metadata": metadata}).encode()), "s", "r"))
    assert (again["metadata"]["topic"], again["metadata"]["partition"]) == (
        "dev.telemetry.assess",
        2,
    )


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"not JSON",
        b"\xff",
        b"[]",
        b'{"raw":"x"}',
        b'{"raw":"x","metadata":{}}',
        b'{"raw":"x","metadata":{"src":"Other"}}',
        b'{"raw":"x","metadata":[]}',
        b'{"raw":5,"metadata":{"src":"AssessmentAggregator"}}',
        b'{"metadata":{"src":"AssessmentAggregator"}}',
        b'{"raw":"\\ud800","metadata":{"src":"AssessmentAggregator"}}',
        b'{"raw":"%","encoding":"base64","metadata":{"src":"AssessmentAggregator"}}',
        '{"raw":"x","metadata":{"src":"AssessmentAggregator"}}'.encode("utf-16"),
        b'{"a":' * 100_000,
    ],
)
def test_what_is_no_wrapping_is_not_unwrapped(value: bytes) -> None:
    assert unwrap(record(value)) is None


# ---------------------------------------------------------------- too large


def test_a_letter_that_is_too_large_is_cut_and_says_so() -> None:
    value = b'{"a":"' + b"x" * 100_000 + b'"}'
    letter = cut_dead_letter(record(value), "ParseEvent", "why", 20_000)
    assert 8_000 < len(letter) <= 20_000
    read = json.loads(letter)
    assert value.decode().startswith(read.pop("raw"))
    assert read == {
        "metadata": {
            "validation_error": "why",
            "src": "AssessmentAggregator",
            "stage": "ParseEvent",
            "topic": "dev.telemetry.assess",
            "partition": 2,
            "offset": 1234,
            "cut": True,
            "size": len(value),
            "sha256": hashlib.sha256(value).hexdigest(),
        }
    }


def test_a_cut_letter_cannot_be_put_through_again_and_stays_what_it_is() -> None:
    letter = cut_dead_letter(record(b"x" * 50_000), "ParseEvent", "why", 20_000)
    again = record(letter, "dev.telemetry.assess.failed", 0, 7)
    with pytest.raises(
        InvalidEventError,
        match=r"^raw: .*50000 bytes.*dev\.telemetry\.assess, partition 2, offset 1234$",
    ):
        unwrap(again)
    refused = json.loads(dead_letter(again, "ParseEvent", "why"))
    assert refused == json.loads(letter)


@pytest.mark.parametrize("letter", ["é", "€", "😀", "x"])
def test_a_cut_inside_a_letter_drops_the_letter(letter: str) -> None:
    for limit in range(20_000, 20_009):
        value = letter.encode() * 20_000
        cut = cut_dead_letter(record(value), "ParseEvent", "why", limit)
        assert len(cut) <= limit
        read = json.loads(cut)
        assert "encoding" not in read
        assert read["raw"]
        assert set(read["raw"]) == {letter}


def test_what_is_no_utf8_is_cut_as_base64() -> None:
    read = json.loads(cut_dead_letter(record(b"\xff" * 50_000), "ParseEvent", "why", 20_000))
    assert read["encoding"] == "base64"
    assert set(base64.b64decode(read["raw"])) == {0xFF}


def test_an_incomplete_letter_of_the_events_own_is_no_cut() -> None:
    read = json.loads(cut_dead_letter(record(b"x\xc3"), "ParseEvent", "why", 20_000))
    assert base64.b64decode(read["raw"]) == b"x\xc3"
