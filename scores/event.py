"""Decode one assessment event and hold it to the rules of the input contract.

The typed decoder reads only the fields that are used and does the type checks in C. What it
refuses is decoded once more with the standard library, which takes JSON that the fast decoder
does not (a lone surrogate escape, a number out of a double's range), because a learner's score
must not be lost for a strange value in a field that nobody reads. Both ways share one set of
types and checks; a property test holds them to equal results.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any

import msgspec

from group_scores.scores.keys import AssessmentKey, oversized_key

MAX_TIME_MS = 253_402_300_799_999
"""The last millisecond of the year 9999: what every reader of these tables can still show."""

_PLACE = re.compile(r"\[\d*\]")
_NO_OBJECT = "json"
_TOO_LONG = "key"
FIELDS = (
    _NO_OBJECT,
    "courseId",
    "batchId",
    "userId",
    "contentId",
    "attemptId",
    _TOO_LONG,
    "assessmentTs",
    "events",
    "events_ets",
    "events_edata",
    "events_edata_score",
    "events_edata_item",
    "events_edata_item_id",
    "events_edata_item_maxscore",
    "raw",
)
"""What `InvalidEventError.counted_as` can be."""


class InvalidEventError(ValueError):
    """An event that can never be processed: `field` broke a rule, `reason` says which."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}" if field else reason)
        self.field = field
        self.reason = reason

    @property
    def counted_as(self) -> str:
        """The field without its place, one of FIELDS, so that a metric can be named by it.

        `json` is what is no JSON object, `key` ids that together are too long for the tables, `raw`
        a dead letter that was cut.
        """
        if not self.field:
            return _NO_OBJECT
        # A key is named by a sentence.
        return _TOO_LONG if " " in self.field else _PLACE.sub("", self.field).replace(".", "_")

    def __reduce__(self) -> tuple[type[InvalidEventError], tuple[str, str]]:
        return type(self), (self.field, self.reason)


class Answer(msgspec.Struct, frozen=True):
    """One answered question as the player reported it. Times in epoch ms, duration in seconds."""

    item_id: str
    ets_ms: int
    score: float
    max_score: float
    type: str | None = None
    title: str | None = None
    description: str | None = None
    resvalues: list[dict[str, str]] | None = None
    params: list[dict[str, str]] | None = None
    duration: int | float = 0


class AssessEvent(msgspec.Struct, frozen=True):
    """One assessment attempt as it was reported, checked against every rule.

    `fields_ignored` counts the optional fields that were taken as absent for a wrong type.
    """

    course_id: str
    user_id: str
    batch_id: str
    content_id: str
    attempt_id: str
    assessment_ts_ms: int
    answers: list[Answer]
    fields_ignored: int = 0

    @property
    def key(self) -> AssessmentKey:
        """The assessment that this event is an attempt at."""
        return AssessmentKey(self.course_id, self.user_id, self.batch_id, self.content_id)


class _Item(msgspec.Struct):
    id: str
    maxscore: float
    type: Any = None
    title: Any = None
    desc: Any = None
    params: Any = None


class _Edata(msgspec.Struct):
    item: _Item
    score: float
    duration: Any = None
    resvalues: Any = None


class _Telemetry(msgspec.Struct):
    ets: int | float
    edata: _Edata


class _Event(msgspec.Struct):
    courseId: str
    batchId: str
    userId: str
    contentId: str
    attemptId: str
    assessmentTs: int | float
    events: list[_Telemetry] | None = None


_decode = msgspec.json.Decoder(_Event).decode
_json_text = msgspec.json.Encoder().encode


def parse_event(data: bytes) -> AssessEvent:
    """Decode the JSON object in `data` and check it.

    Raises InvalidEventError, naming the first field that breaks a rule and why.
    """
    try:
        event = _decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        event = decode_leniently(data)
    return _check(event)


def decode_leniently(data: bytes) -> _Event:
    """Decode with the standard library; the slow way round what the typed decoder refuses."""
    try:
        # surrogateescape: bytes that are no UTF-8 in a field that nobody reads harm nobody, and
        # in one that is read they show up as the lone surrogates that the checks refuse.
        tree = json.loads(
            data.decode("utf-8", "surrogateescape"),
            parse_constant=_refuse_constant,
            parse_int=_integer,
        )
    except RecursionError:
        raise InvalidEventError("", "the JSON is nested too deeply to be read") from None
    except ValueError as error:
        encoding = "" if _is_bytes_utf8(data) else ", nor is it UTF-8"
        raise InvalidEventError("", f"the message is not JSON{encoding}: {error}") from None
    if not isinstance(tree, dict):
        raise InvalidEventError("", f"the message is {_A_JSON[type(tree)]}, not a JSON object")
    try:
        return msgspec.convert(_convertible(tree, _NO_TEXT), _Event)
    except msgspec.ValidationError as error:
        raise _explain(str(error)) from None


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not a JSON number")


def _integer(digits: str) -> int | float:
    # Past a double's range an integer is as good as infinite, and int() refuses very long ones.
    double = float(digits)
    return int(digits) if math.isfinite(double) else double


# The used fields that are no text, as they lie within each other.
_NO_TEXT: dict[str, Any] = {
    "assessmentTs": {},
    "events": {"ets": {}, "edata": {"score": {}, "item": {"maxscore": {}}}},
}


def _convertible(value: Any, no_text: dict[str, Any]) -> Any:
    """Take out what `msgspec.convert` fails on: a lone surrogate in a name, or for a number."""
    if isinstance(value, dict):
        return {
            name: _convertible(inner, no_text[name]) if name in no_text else inner
            for name, inner in value.items()
            if _is_utf8(name)
        }
    if isinstance(value, list):
        # A list within the list is wrong, and is not followed: it may be as deep as it likes.
        return [each if isinstance(each, list) else _convertible(each, no_text) for each in value]
    return "" if isinstance(value, str) else value  # no text is right here, so any will do


def _check(event: _Event) -> AssessEvent:
    for name in ("courseId", "batchId", "userId", "contentId", "attemptId"):
        _check_id(getattr(event, name), name)
    time_ms = _time_ms(event.assessmentTs, "assessmentTs")
    over = oversized_key(
        event.courseId, event.userId, event.batchId, event.contentId, event.attemptId
    )
    if over:
        raise InvalidEventError(
            over[0], f"takes {over[1]} bytes, and the table's limit is 65535; shorten the ids"
        )
    ignored: list[str] = []
    answers = [
        _answer(telemetry, index, ignored) for index, telemetry in enumerate(event.events or ())
    ]
    return AssessEvent(
        event.courseId,
        event.userId,
        event.batchId,
        event.contentId,
        event.attemptId,
        time_ms,
        answers,
        len(ignored),
    )


def _answer(telemetry: _Telemetry, index: int, ignored: list[str]) -> Answer:
    edata = telemetry.edata
    item = edata.item
    at = f"events[{index}]"
    ets_ms = _time_ms(telemetry.ets, f"{at}.ets")
    _check_id(item.id, f"{at}.edata.item.id")
    if not (math.isfinite(item.maxscore) and item.maxscore >= 0):
        raise InvalidEventError(
            f"{at}.edata.item.maxscore", "must be a finite number that is not negative"
        )
    if not math.isfinite(edata.score):
        raise InvalidEventError(f"{at}.edata.score", "must be a finite number")
    return Answer(
        item.id,
        ets_ms,
        edata.score,
        item.maxscore,
        _text(item.type, ignored),
        _text(item.title, ignored),
        _text(item.desc, ignored),
        _maps(edata.resvalues, ignored),
        _maps(item.params, ignored),
        _duration(edata.duration, ignored),
    )


def _check_id(value: str, field: str) -> None:
    if not value or value.isspace():
        raise InvalidEventError(field, "must not be blank")
    if not _is_utf8(value):
        raise InvalidEventError(field, "must be text that UTF-8 can hold (no lone surrogate)")


def _time_ms(value: int | float, field: str) -> int:
    if isinstance(value, float):
        if not value.is_integer():  # infinity too
            raise InvalidEventError(field, f"must be a whole number of epoch ms, not {value!r}")
        value = int(value)
    if not 0 < value <= MAX_TIME_MS:
        raise InvalidEventError(
            field, f"must be epoch ms from 1 to {MAX_TIME_MS}, not {str(value)[:24]}"
        )
    return value


def _is_utf8(value: str) -> bool:
    if value.isascii():
        return True
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_bytes_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _text(value: Any, ignored: list[str]) -> str | None:
    if value is None or (isinstance(value, str) and _is_utf8(value)):
        return value
    ignored.append("text")
    return None


def _duration(value: Any, ignored: list[str]) -> int | float:
    if value is None:
        return 0
    if type(value) in (int, float):  # bool is no number
        if abs(value) < 2**63:
            return value  # type: ignore[no-any-return]
        if math.isfinite(double := _double(value)):  # what encodes elements stops at 64 bits
            return double
    ignored.append("duration")
    return 0


def _double(value: int | float) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf


def _maps(value: Any, ignored: list[str]) -> list[dict[str, str]] | None:
    if value is None:
        return None
    if type(value) is not list:  # an empty map or text can be walked through, too
        ignored.append("maps")
        return None
    try:
        if _are_plain(value):
            return value
        return [{_utf8(key): _map_value(item) for key, item in entry.items()} for entry in value]
    except (AttributeError, TypeError, ValueError, RecursionError):
        ignored.append("maps")
        return None


def _are_plain(entries: list[dict[str, Any]]) -> bool:
    """Tell whether all is ASCII text, as nearly always: taken as it is, at a third of the cost."""
    for entry in entries:
        for key, item in entry.items():
            if type(item) is not str or not item.isascii() or not key.isascii():
                return False
    return True


def _utf8(value: str) -> str:
    if not _is_utf8(value):
        raise ValueError("a lone surrogate")
    return value


def _map_value(item: Any) -> str:
    if isinstance(item, str):
        return _utf8(item)
    _refuse_non_finite(item)
    return _json_text(item).decode()


def _refuse_non_finite(item: Any) -> None:
    """Raise ValueError where the JSON text of `item` would not say what the event said."""
    if isinstance(item, int | float) and not math.isfinite(_double(item)):
        raise ValueError("a number out of a double's range")
    if isinstance(item, dict):
        for value in item.values():
            _refuse_non_finite(value)
    elif isinstance(item, list):
        for value in item:
            _refuse_non_finite(value)


_A_JSON: dict[type, str] = {
    list: "a JSON array",
    str: "a JSON string",
    int: "a number",
    float: "a number",
    bool: "a boolean",
    type(None): "null",
}
_GOT = {
    "str": "a string",
    "int": "a number",
    "float": "a number",
    "bool": "a boolean",
    "null": "null",
    "array": "an array",
    "object": "an object",
}
_WANTED = {
    "assessmentTs": "an integer, epoch ms",
    "ets": "an integer, epoch ms",
    "maxscore": "a number",
    "score": "a number",
    "events": "a list of ASSESS telemetry, or null",
    "edata": "an object",
    "item": "an object",
}
_MISSING = re.compile(r"Object missing required field `(\w+)`(?: - at `\$\.?(.*)`)?")
_WRONG_TYPE = re.compile(r"Expected `.*`, got `(\w+)`(?: - at `\$\.?(.*)`)?")


def _explain(message: str) -> InvalidEventError:
    """Turn the decoder's sentence into the contract's words."""
    if found := _MISSING.fullmatch(message):
        return InvalidEventError(".".join(filter(None, (found[2], found[1]))), "is missing")
    if found := _WRONG_TYPE.fullmatch(message):
        path = found[2] or ""
        name = path.rpartition(".")[2]
        wanted = "an object" if name.endswith("]") else _WANTED.get(name, "a string")
        return InvalidEventError(path, f"must be {wanted}, not {_GOT.get(found[1], found[1])}")
    return InvalidEventError("", message)
