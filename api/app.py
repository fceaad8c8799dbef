"""The routes of the server."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from functools import lru_cache

import msgspec
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from group_scores.api import openapi
from group_scores.api.aggregate import aggregate
from group_scores.api.contract import message_id, parse_body, success
from group_scores.api.errors import (
    ApiError,
    internal_error,
    invalid_request,
    not_a_member,
    too_large,
)
from group_scores.api.frame import Frame, error_answer
from group_scores.api.groups import Groups
from group_scores.api.metrics import Metrics
from group_scores.api.names import KnownNames, NameLookup
from group_scores.api.page import page_routes
from group_scores.api.rows import GroupRows
from group_scores.api.settings import Settings
from group_scores.api.tokens import HEADER, Tokens
from group_scores.stores.groups import GroupMember

PATHS = ("/v1/group/activity/agg", "/data/v1/group/activity/agg")
_BODY_S = 10.0
_JSON = "application/json"
# From here on the answer is made in a thread: it takes longer than others should wait for.
_MANY_MEMBERS = 200


@dataclass(frozen=True)
class Parts:
    """What the routes work with; `tokens` None asks nobody for a token."""

    settings: Settings
    groups: Groups
    rows: GroupRows
    tokens: Tokens | None
    metrics: Metrics
    names: NameLookup = field(default_factory=KnownNames)

    async def caller(self, token: str | None) -> str | None:
        """Return who asks; None where nobody is asked for a token. Raises ApiError (401)."""
        return None if self.tokens is None else await self.tokens.caller(token)

    async def active_members(
        self, group_id: str, caller: str | None, token: str | None, request_id: str
    ) -> list[GroupMember]:
        """Return the active members of a group that the caller may see.

        Raises ApiError: not an active member (403), no such group (404), not readable now (503).
        """
        members = await self.groups.members(group_id, token, request_id)
        active = [member for member in members if member.is_active]
        if self.tokens is not None and all(member.user_id != caller for member in active):
            raise not_a_member()
        return active


def make_app(parts: Parts) -> ASGIApp:
    """Return the ASGI application."""

    async def group_activity_agg(request: Request) -> Response:
        return await _group_activity_agg(parts, request)

    async def ready(request: Request) -> Response:
        return await _ready(parts)

    async def metrics(request: Request) -> Response:
        return Response(parts.metrics.text(), media_type=parts.metrics.content_type)

    routes = [
        *(Route(path, group_activity_agg, methods=["POST"]) for path in PATHS),
        *page_routes(parts),
        Route("/health", _health),
        Route("/ready", ready),
        Route("/metrics", metrics),
        Route("/openapi.json", _openapi),
    ]
    app = Starlette(
        routes=routes,
        exception_handlers={
            ApiError: _known_error,
            HTTPException: _http_error,
            Exception: _unexpected,
        },
    )
    names = {route.endpoint: route.path for route in reversed(routes)}
    return Frame(
        app,
        parts.metrics,
        names,
        most=parts.settings.requests,
        always=frozenset({"/health", "/ready", "/metrics"}),
        only_local=not parts.settings.has_keys,
    )


async def _group_activity_agg(parts: Parts, request: Request) -> Response:
    token = request.headers.get(HEADER)
    caller = await parts.caller(token)  # before anything is read of somebody unknown
    asked = parse_body(await _body(request, parts.settings.body_bytes))
    request_id: str = request.scope["request_id"]
    members = await parts.active_members(asked.group_id, caller, token, request_id)
    users = [member.user_id for member in members]
    rows = await parts.rows.of(asked.activity_type, asked.activity_id, users)
    msgid = message_id(request.headers.get("x-msgid"))

    def answer() -> bytes:
        return success(aggregate(asked, members, rows, time.time_ns() // 1_000_000), msgid)

    large = len(members) > _MANY_MEMBERS
    return Response(await run_in_threadpool(answer) if large else answer(), media_type=_JSON)


async def _body(request: Request, most: int) -> bytes:
    wrong = too_large(f"The body has more than {most:,} bytes.")
    length = request.headers.get("content-length", "")
    if length.isascii() and length.isdigit() and int(length[:20]) > most:
        raise wrong
    data = bytearray()
    try:
        async with asyncio.timeout(_BODY_S):
            async for chunk in request.stream():
                data += chunk
                if len(data) > most:
                    raise wrong
    except TimeoutError:
        raise invalid_request(f"The body did not come within {_BODY_S:g} s.") from None
    return bytes(data)


async def _health(request: Request) -> Response:
    return Response(b'{"status":"ok"}', media_type=_JSON)


async def _ready(parts: Parts) -> Response:
    for check in (parts.rows.check, parts.groups.check):
        try:
            await check()
        except ApiError as error:
            said = msgspec.json.encode({"status": "unavailable", "reason": error.code})
            return Response(said, 503, media_type=_JSON)
    return Response(b'{"status":"ready"}', media_type=_JSON)


@lru_cache(1)
def _description() -> bytes:
    return msgspec.json.encode(openapi.describe(PATHS))


async def _openapi(request: Request) -> Response:
    return Response(_description(), media_type=_JSON)


async def _known_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return error_answer(request.scope, error)


async def _unexpected(request: Request, error: Exception) -> Response:
    """Answer for what the frame logs when the framework has raised it again."""
    return error_answer(request.scope, internal_error())


async def _http_error(request: Request, error: Exception) -> Response:
    """Put what the framework says, an unknown path or method, into the envelope."""
    assert isinstance(error, HTTPException)
    code, said = {
        404: ("NOT_FOUND", "There is nothing at this path."),
        405: ("METHOD_NOT_ALLOWED", "The path does not take this method."),
    }.get(error.status_code, ("INVALID_REQUEST", "The request cannot be understood."))
    answer = error_answer(request.scope, ApiError(error.status_code, code, said))
    answer.headers.update(error.headers or {})
    return answer
