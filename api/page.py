"""The routes of the page: a group's best scores in an activity, as HTML and CSV, and a member's.

The same members are asked for, and the same rules say who may see them, as in the API. A browser
sends no header of ours, so the token may come in a cookie.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING
from urllib.parse import unquote

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers, QueryParams
from starlette.requests import Request, cookie_parser
from starlette.responses import Response
from starlette.routing import Match, Route
from starlette.types import Scope

from group_scores.api.contract import MAX_ID, is_id
from group_scores.api.errors import ApiError, invalid_request, invalid_token
from group_scores.api.group_view import group_scores
from group_scores.api.page_csv import disposition, group_csv
from group_scores.api.page_render import POLICY, error_page, group_page, member_page
from group_scores.api.page_views import Place
from group_scores.api.tokens import HEADER
from group_scores.api.words import LANGUAGES, Words, choose
from group_scores.scores.detail import read_details
from group_scores.scores.keys import ACTIVITY_TYPE

if TYPE_CHECKING:
    from group_scores.api.app import Parts

COOKIE = "group_scores_token"
"""The cookie that has the JWT: the portal sets it, HttpOnly and Secure."""

PREFIX = "/groups/"
GROUP = "/groups/{groupId}/activities/{activityId}"
MEMBER = GROUP + "/members/{userId}"
_HTML = "text/html; charset=utf-8"
_CSV = "text/csv; charset=utf-8; header=present"
_BEARER = "bearer"
_HEADERS = {
    "content-security-policy": POLICY,
    "referrer-policy": "no-referrer",  # an address has the ids in it
    "cross-origin-resource-policy": "same-origin",
    "vary": "accept-language, authorization, cookie",
}


class RawRoute(Route):
    """A route whose parts are those of the path as it was sent: an id may hold a slash, as %2F."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """See Starlette."""
        raw = scope.get("raw_path")
        if scope["type"] != "http" or not raw:
            return super().matches(scope)
        path = raw.partition(b"?")[0].decode("latin-1")
        return super().matches({**scope, "path": path, "root_path": ""})


def page_routes(parts: Parts) -> list[Route]:
    """Return the routes of the page."""

    async def group(request: Request) -> Response:
        return await _group(parts, request)

    async def member(request: Request) -> Response:
        return await _member(parts, request)

    return [RawRoute(GROUP, group), RawRoute(MEMBER, member)]


def is_page(scope: Scope) -> bool:
    """Tell whether a person asks, who is better told of an error by a page."""
    path: str = scope["path"]
    return path.startswith(PREFIX)


def token_of(headers: Headers) -> str | None:
    """Return the token that came with a request: in the API's header, the cookie or as a bearer.

    In this order, as a gateway may put a key of its own into `authorization`.
    """
    cookies = cookie_parser("; ".join(headers.getlist("cookie")))
    scheme, _, bearer = headers.get("authorization", "").partition(" ")
    given = (headers.get(HEADER), cookies.get(COOKIE), bearer if scheme.lower() == _BEARER else "")
    return next((token.strip() for token in given if token), None)


async def _caller(parts: Parts, token: str | None) -> str | None:
    if parts.tokens is not None and not token:
        raise invalid_token(f"There is no token, in the cookie {COOKIE} or as a bearer's.")
    return await parts.caller(token)


async def _group(parts: Parts, request: Request) -> Response:
    token = token_of(request.headers)
    caller = await _caller(parts, token)  # before anything is read of somebody unknown
    place, kind, as_csv = _asked(request)
    members = await parts.active_members(place.group_id, caller, token, request.scope["request_id"])
    users = [member.user_id for member in members]
    rows = await parts.rows.of(kind, place.activity_id, users)
    scores = await run_in_threadpool(group_scores, place.activity_id, members, rows)
    names = await parts.names.names_of([*scores.contents, place.activity_id])
    if as_csv:
        data = await run_in_threadpool(group_csv, place.activity_id, scores, names)
        headers = _HEADERS | {"content-disposition": disposition(place.activity_id)}
        return Response(data, 200, headers, _CSV)
    words = _words(request.scope)
    page = await run_in_threadpool(
        group_page, place, scores, names, words, details=parts.rows.has_details
    )
    return _html(page, words)


async def _member(parts: Parts, request: Request) -> Response:
    token = token_of(request.headers)
    caller = await _caller(parts, token)
    place, kind, _ = _asked(request)
    user_id = _id(request, "userId")
    members = await parts.active_members(place.group_id, caller, token, request.scope["request_id"])
    members = [member for member in members if member.user_id == user_id]
    if not members:
        raise ApiError(404, "MEMBER_NOT_FOUND", "The group has no such active member.")
    rows = await parts.rows.with_details(kind, place.activity_id, user_id)
    (member,) = group_scores(place.activity_id, members, [rows]).members
    details = [read_details(one.row.details) for one in sorted(rows, key=lambda r: r.context_id)]
    contents = {content for one in member.batches for content in one.row.scores}
    contents |= {attempt.content_id for some in details for attempt in some}
    names = await parts.names.names_of(contents)
    words = _words(request.scope)
    return _html(member_page(place, member, details, names, words), words)


def _asked(request: Request) -> tuple[Place, str, bool]:
    """Return the place, the activity's type and whether it is CSV that is asked for."""
    query = request.query_params
    kind, form = query.get("activityType", ACTIVITY_TYPE), query.get("format", "html")
    if form not in ("html", "csv"):
        raise invalid_request("The format must be html or csv.")
    if not is_id(kind):
        raise invalid_request("The activityType is empty or too long.")
    kept = {} if kind == ACTIVITY_TYPE else {"activityType": kind}
    if query.get("lang") in LANGUAGES:
        kept["lang"] = query["lang"]
    place = Place(_id(request, "groupId"), _id(request, "activityId"), tuple(kept.items()))
    return place, kind, form == "csv"


def _id(request: Request, name: str) -> str:
    try:
        text = unquote(request.path_params[name], errors="strict")
    except UnicodeDecodeError:
        raise invalid_request(f"The {name} is not UTF-8.") from None
    if not is_id(text):
        raise invalid_request(f"The {name} is empty or longer than {MAX_ID:,} characters.")
    return text


def _words(scope: Scope) -> Words:
    asked = QueryParams(scope.get("query_string", b"")).get("lang")
    return choose(asked, Headers(scope=scope).get("accept-language"))


def _html(page: bytes, words: Words, status: int = 200) -> Response:
    return Response(page, status, _HEADERS | {"content-language": words.lang}, _HTML)


def error_answer(scope: Scope, error: ApiError) -> Response:
    """Return the page of an error."""
    words = _words(scope)
    page = error_page(error, scope["request_id"], words)
    answer = _html(page, words, error.status)
    more: Mapping[int, tuple[str, str]] = {
        401: ("www-authenticate", "Bearer"),
        503: ("retry-after", "1"),
    }
    if error.status in more:
        name, value = more[error.status]
        answer.headers[name] = value
    return answer
