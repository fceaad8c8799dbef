"""The request and the answers of `POST /v1/group/activity/agg`, as JSON has them.

Source: the contract of the group aggregate API; names are the portal's.
"""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Annotated, Literal

import msgspec

from group_scores.api.errors import ApiError, ResponseCode, invalid_request

API_ID = "api.group.activity.agg"
MAX_ID = 1_024
_LONGEST_MSGID = 256

# A character that is no whitespace: neither in Python nor in ECMAScript, which the description's
# readers have, and whose `\s` is another.
_SOMETHING = r"[^\s\x1c-\x1f\x85\ufeff]"

Id = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_ID, pattern=_SOMETHING)]


def is_id(text: str) -> bool:
    """Tell whether a text can be an id, or a type: one that says something, and is not too long."""
    try:
        msgspec.convert(text, Id)
    except msgspec.ValidationError:
        return False
    return True


class AggRequest(msgspec.Struct, rename="camel"):
    """Which group, and which activity of it."""

    group_id: Id
    activity_id: Id
    activity_type: Id


class Body(msgspec.Struct):
    """The body of a request; what else is in it is not looked at."""

    request: AggRequest


class MemberMetric(msgspec.Struct, rename="camel", gc=False):
    """One value of a member; `lastUpdatedOn` is epoch ms.

    It can be in no cycle, and there are thousands in an answer: the collector need not look.
    """

    metric: str
    value: int | float | None
    last_updated_on: int | None


class ActivityMetric(msgspec.Struct, rename="camel"):
    """One value of the activity; `lastUpdatedOn` is epoch ms."""

    metric: str
    last_updated_on: int
    value: int


class Member(msgspec.Struct, rename="camel"):
    """A member's row in one batch; a member in two batches stands twice."""

    agg: list[MemberMetric]
    name: str
    role: str | None
    status: str | None
    created_by: str | None
    user_id: str


class Activity(msgspec.Struct):
    """The activity that was asked for."""

    id: str
    type: str
    agg: list[ActivityMetric]


class Result(msgspec.Struct, rename="camel"):
    """What was asked for."""

    activity: Activity
    group_id: str
    members: list[Member]


class Empty(msgspec.Struct):
    """The result of an error."""


class Params(msgspec.Struct):
    """How it went; `msgid` is the request's, or a new one."""

    resmsgid: None
    msgid: str
    err: str | None
    status: Literal["success", "failed"]
    errmsg: str | None


class Answer(msgspec.Struct, rename="camel"):
    """The envelope of an answer."""

    id: str
    ver: str
    ts: str
    params: Params
    response_code: Literal["OK"]
    result: Result


class ErrorAnswer(msgspec.Struct, rename="camel"):
    """The envelope of an error."""

    id: str
    ver: str
    ts: str
    params: Params
    response_code: ResponseCode
    result: Empty


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Body).decode


def parse_body(data: bytes) -> AggRequest:
    """Return what is asked for; raises ApiError (400) naming what is wrong."""
    try:
        return _decode(data).request
    except msgspec.ValidationError as error:
        raise invalid_request(f"{error}.") from None
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        raise invalid_request("The body is not valid JSON.") from None


def message_id(given: str | None) -> str:
    """Return the caller's `x-msgid`, or a new one where there is none of a sensible length."""
    if given and len(given) <= _LONGEST_MSGID and given.isprintable():
        return given
    return str(uuid.uuid4())


def success(result: Result, msgid: str) -> bytes:
    """Return the answer as JSON."""
    params = Params(None, msgid, None, "success", None)
    return _encode(Answer(API_ID, "v1", timestamp(), params, "OK", result))


def failure(error: ApiError, msgid: str) -> bytes:
    """Return the error as JSON."""
    params = Params(None, msgid, error.code, "failed", error.message)
    code = error.response_code
    return _encode(ErrorAnswer(API_ID, "v1", timestamp(), params, code, Empty()))


def timestamp(now: datetime | None = None) -> str:
    """Format as `2021-04-14 17:49:30:782+0530`, in the zone of the time or of the machine."""
    now = now or datetime.now().astimezone()
    return f"{now:%Y-%m-%d %H:%M:%S}:{now.microsecond // 1000:03}{now:%z}"
