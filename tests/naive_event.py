"""One message worked out from the contract, slowly and plainly: refused, or an attempt's row.

The standard library alone, and no line shared with the pipeline. Where the contract leaves
something open, the function that decides says so. `tests/naive.py` makes the tables of these.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping
from fractions import Fraction
from functools import lru_cache
from typing import Any

Row = dict[str, Any]
Asked = tuple[str, str, str, str]  # user, course, batch, content

KEY_COLUMNS = ("user_id", "course_id", "batch_id", "content_id", "attempt_id")
KEY_BYTES = 65_535
GREATEST_MS = 253_402_300_799_999  # the end of the year 9999, where most calendars end


class Refused(Exception):
    """The message breaks a rule of events.md; the text is the field that breaks it."""


def read_event(message: bytes) -> dict[str, Any]:
    """The JSON object of a message: no BOM, no NaN or Infinity.

    Open in the contract: bytes that are no UTF-8. In a field that nobody reads they harm nobody;
    in one that is read they are lone surrogates here, which no rule lets through.
    """

    def refuse_constant(name: str) -> None:
        raise ValueError(name)

    try:
        event = json.loads(
            message.decode("utf-8", "surrogateescape"),
            parse_constant=refuse_constant,
            parse_int=read_integer,
        )
    except (ValueError, RecursionError):
        raise Refused("message") from None
    if not isinstance(event, dict):
        raise Refused("message")
    return event


def read_integer(text: str) -> int | float:
    """Python refuses to read an integer of more than 4,300 digits; as a double it is infinite."""
    return int(text) if len(text) < 4_000 else float(text)


def unwrapped(message: bytes) -> bytes:
    """The event inside a dead letter that is a wrapping; any other message as it is."""
    try:
        letter = read_event(message)
    except Refused:
        return message
    raw, metadata = letter.get("raw"), letter.get("metadata")
    if not set(letter) <= {"raw", "encoding", "metadata"}:
        return message
    if not isinstance(raw, str) or not isinstance(metadata, dict):
        return message
    if metadata.get("src") != "AssessmentAggregator" or metadata.get("cut"):
        return message
    return base64.b64decode(raw) if letter.get("encoding") == "base64" else raw.encode()


def encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def required_text(value: Any, field: str) -> str:
    if not isinstance(value, str) or not value.strip() or not encodable(value):
        raise Refused(field)
    return value


def number_or_none(value: Any) -> float | None:
    """The value as a double when it is a JSON number that a double holds; true is no number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        double = float(value)
    except OverflowError:
        return None
    return double if math.isfinite(double) else None


def required_number(value: Any, field: str) -> float:
    number = number_or_none(value)
    if number is None:
        raise Refused(field)
    return number


def required_time_ms(value: Any, field: str) -> int:
    """Epoch milliseconds. Open in the contract: the greatest; here, the end of the year 9999."""
    number = required_number(value, field)
    if number != math.floor(number):
        raise Refused(field)
    if not 0 < int(value) <= GREATEST_MS:
        raise Refused(field)
    return int(value)


def size(text: str) -> int:
    return len(text.encode("utf-8"))


def check_key_sizes(event: Mapping[str, Any]) -> None:
    """A composite partition key takes three bytes a part besides the parts themselves.

    Measured on Cassandra 5.0.6, stricter than the contract: the limit holds for the clustering
    columns of a row together. Those of the older primary key are the longest.
    """
    user, course = size(event["userId"]), size(event["courseId"])
    if user + course + 2 * 3 > KEY_BYTES or len("Course") + course + user + 3 * 3 > KEY_BYTES:
        raise Refused("userId" if user >= course else "courseId")
    if len("cb:") + size(event["batchId"]) > KEY_BYTES:
        raise Refused("batchId")
    if len("attempts_count:") + size(event["contentId"]) > KEY_BYTES:
        raise Refused("contentId")
    clustering = ("batchId", "userId", "contentId", "attemptId")
    if sum(size(event[name]) for name in clustering) > KEY_BYTES:
        raise Refused("attemptId")


def optional_text(value: Any) -> str | None:
    return value if isinstance(value, str) and encodable(value) else None


def optional_number(value: Any) -> float:
    number = number_or_none(value)
    return 0.0 if number is None else number


def optional_maps(value: Any) -> list[dict[str, str]] | None:
    """A list of maps as the table stores it; one element that is no map makes it no such list.

    Open in the contract: what cannot be stored as JSON text in UTF-8. It is a wrong type, too.
    """
    if not isinstance(value, list) or not all(isinstance(element, dict) for element in value):
        return None
    try:
        stored = [{key: stored_text(inner) for key, inner in each.items()} for each in value]
    except ValueError:
        return None
    for each in stored:
        if not all(encodable(key) and encodable(text) for key, text in each.items()):
            return None
    return stored


def stored_text(value: Any) -> str:
    return value if isinstance(value, str) else json_text(value)


def json_text(value: Any) -> str:
    """Compact JSON: no spaces, key order kept, non-ASCII as is, and a number as short as can be.

    Raises ValueError for a number that no double holds: nobody could read it back.
    """
    if isinstance(value, dict):
        return "{" + ",".join(f"{json_text(k)}:{json_text(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(json_text(element) for element in value) + "]"
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if number and number_or_none(value) is None:
        raise ValueError(value)
    text = json.dumps(value, ensure_ascii=False)
    return shortest(text) if isinstance(value, float) else text


def shortest(number: str) -> str:
    """A double as the shortest digits that give it back: 1e16, 1e-7, and 0.00001 for 1e-05."""
    digits, _, exponent = number.partition("e")
    if not exponent:
        return number
    if int(exponent) == -5:
        sign, digits = ("-", digits[1:]) if digits.startswith("-") else ("", digits)
        return f"{sign}0.0000{digits.replace('.', '')}"
    return f"{digits}e{int(exponent)}"


def part(value: Any, name: str, field: str) -> Any:
    """A member of a part that has to be an object, itself possibly missing."""
    if not isinstance(value, dict):
        raise Refused(field)
    return value.get(name)


def read_answer(answer: Any, field: str) -> Row:
    """One element of `events` as the UDT value it would be stored as."""
    edata = part(answer, "edata", field)
    item = part(edata, "item", f"{field}.edata")
    maximum = required_number(part(item, "maxscore", f"{field}.edata.item"), f"{field}.maxscore")
    if maximum < 0:
        raise Refused(f"{field}.edata.item.maxscore")
    return {
        "id": required_text(item.get("id"), f"{field}.edata.item.id"),
        "assess_ts": required_time_ms(answer.get("ets"), f"{field}.ets"),
        "max_score": maximum,
        "score": required_number(edata.get("score"), f"{field}.edata.score"),
        "type": optional_text(item.get("type")),
        "title": optional_text(item.get("title")),
        "resvalues": optional_maps(edata.get("resvalues")),
        "params": optional_maps(item.get("params")),
        "description": optional_text(item.get("desc")),
        "duration": optional_number(edata.get("duration")),
    }


@lru_cache(maxsize=100_000)  # a message is looked at several times, and is always the same
def read_message(message: bytes) -> tuple[Asked, Row | None]:
    """The assessment that a message is about, and its attempt's row when it has answers.

    Raises Refused when the message is a dead letter.
    """
    event = read_event(unwrapped(message))
    for name in ("courseId", "batchId", "userId", "contentId", "attemptId"):
        required_text(event.get(name), name)
    check_key_sizes(event)
    taken_ms = required_time_ms(event.get("assessmentTs"), "assessmentTs")
    answers = event.get("events")
    if answers is None:
        answers = []
    if not isinstance(answers, list):
        raise Refused("events")
    read = [read_answer(answer, f"events[{index}]") for index, answer in enumerate(answers)]

    asked = (event["userId"], event["courseId"], event["batchId"], event["contentId"])
    if not read:
        return asked, None
    questions = counted_answers(read)
    total = exact_sum([question["score"] for question in questions], "score")
    total_max = exact_sum([question["max_score"] for question in questions], "maxscore")
    ids = (*asked, event["attemptId"])
    return asked, {
        **dict(zip(KEY_COLUMNS, ids, strict=True)),
        "last_attempted_on": taken_ms,
        "total_score": total,
        "total_max_score": total_max,
        "grand_total": f"{two_decimals(total)}/{two_decimals(total_max)}",
        "question": questions,
    }


def counted_answers(answers: list[Row]) -> list[Row]:
    """Of each question the latest answer (the first of equals), where the question first stands."""
    in_order: list[str] = []
    for answer in answers:
        if answer["id"] not in in_order:
            in_order.append(answer["id"])
    counted = []
    for question in in_order:
        given = [answer for answer in answers if answer["id"] == question]
        latest = max(answer["assess_ts"] for answer in given)
        counted.append(next(answer for answer in given if answer["assess_ts"] == latest))
    return counted


def exact_sum(numbers: list[float], field: str) -> float:
    """The double nearest to the exact sum; a sum that no double holds is refused."""
    try:
        return float(sum(map(Fraction, numbers), Fraction(0)))
    except OverflowError:
        raise Refused(f"events[].{field}") from None


def two_decimals(number: float) -> str:
    """One or two decimals of the number as it is in binary, ties to even: 2.0, 1.33, 0.12."""
    hundredths = round(Fraction(number) * 100)  # of a Fraction: exact, half to even
    sign = "-" if hundredths < 0 else ""
    whole, rest = divmod(abs(hundredths), 100)
    digits = f"{rest:02}"
    return f"{sign}{whole}.{digits[:1] if digits.endswith('0') else digits}"
