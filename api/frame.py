"""What goes around every request: its id, its line in the log, its limits, and its last resort."""

from __future__ import annotations

import logging
import re
import time
import traceback
import uuid
from collections.abc import Mapping
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from group_scores.api import page
from group_scores.api.contract import failure, message_id
from group_scores.api.errors import ApiError, internal_error, invalid_request
from group_scores.api.metrics import Metrics
from group_scores.api.settings import is_local

_log = logging.getLogger(__name__)
access = logging.getLogger("group_scores.access")
_REQUEST_ID = re.compile(r"[\w.:-]{1,128}", re.ASCII)
_GONE = 499  # as proxies log a client that did not wait
_OTHER = "other"
_HEADERS = {
    "cache-control": "no-store",
    "x-content-type-options": "nosniff",
}


class Frame:
    """An ASGI application around another one.

    `routes` names the route of an endpoint for the log and the metrics, which hold no id.
    At most `most` requests are at work, those for `always` not counted. `only_local` refuses
    requests that name another host: a web page must not reach a server without tokens by a name
    of its own that leads here.
    """

    def __init__(
        self,
        app: ASGIApp,
        metrics: Metrics,
        routes: Mapping[Any, str],
        *,
        most: int,
        always: frozenset[str],
        only_local: bool,
    ) -> None:
        self._app = app
        self._metrics = metrics
        self._routes = routes
        self._most = most
        self._always = always
        self._only_local = only_local
        self._at_work = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = _Exchange(scope, send)
        self._at_work += 1
        self._metrics.in_flight.set(self._at_work)
        try:
            await self._answer(exchange, receive)
        finally:
            self._at_work -= 1
            self._metrics.in_flight.set(self._at_work)
            self._told(exchange)

    async def _answer(self, exchange: _Exchange, receive: Receive) -> None:
        scope = exchange.scope
        try:
            self._admit(scope)
            await self._app(scope, receive, exchange.send)
        except ApiError as error:
            await error_answer(scope, error)(scope, receive, exchange.send)
        except ClientDisconnect:
            exchange.status = _GONE
        except Exception as error:
            # Its words could hold what a learner wrote, so only the place is said.
            place = traceback.extract_tb(error.__traceback__)[-1]
            where = f"{place.filename.rpartition('/')[2]}:{place.lineno}"
            _log.error("unexpected %s at %s", type(error).__name__, where)
            if exchange.status is None:
                await error_answer(scope, internal_error())(scope, receive, exchange.send)

    def _admit(self, scope: Scope) -> None:
        if self._only_local and not is_local(Headers(scope=scope).get("host", "localhost")):
            raise invalid_request("The host header must name this machine: localhost.")
        if self._at_work > self._most and scope["path"] not in self._always:
            raise ApiError(503, "TOO_BUSY", "Too many requests at once; try again in a moment.")

    def _told(self, exchange: _Exchange) -> None:
        scope, status = exchange.scope, exchange.status or _GONE
        seconds = time.perf_counter() - exchange.begun_s
        route = self._routes.get(scope.get("endpoint"), _OTHER)
        self._metrics.answered(route, status, seconds)
        if not access.isEnabledFor(logging.INFO):
            return
        method = scope["method"] if scope["method"] in _METHODS else _OTHER
        fields = {
            "method": method,
            "route": route,
            "status": status,
            "ms": round(seconds * 1000, 1),
            "bytes": exchange.bytes,
            "request_id": scope["request_id"],
        }
        text = "%s %s %d in %.1f ms, %d bytes, request %s"
        access.info(text, *fields.values(), extra={"fields": fields})


_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")


class _Exchange:
    """A request and what was sent of its answer."""

    def __init__(self, scope: Scope, send: Send) -> None:
        self.begun_s = time.perf_counter()
        self.scope = scope
        self.status: int | None = None
        self.bytes = 0
        self._send = send
        given = Headers(scope=scope).get("x-request-id", "")
        scope["request_id"] = given if _REQUEST_ID.fullmatch(given) else str(uuid.uuid4())

    async def send(self, message: Message) -> None:
        """Send on; an answer gets the headers that all have."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            headers["x-request-id"] = self.scope["request_id"]
            for name, value in _HEADERS.items():
                headers.setdefault(name, value)
        elif message["type"] == "http.response.body":
            self.bytes += len(message.get("body", b""))
        await self._send(message)


def error_answer(scope: Scope, error: ApiError) -> Response:
    """Return the envelope of an error; its page where a person asked."""
    if page.is_page(scope):
        return page.error_answer(scope, error)
    msgid = message_id(Headers(scope=scope).get("x-msgid"))
    headers = {"retry-after": "1"} if error.status == 503 else {}
    if error.status == 413:
        headers["connection"] = "close"  # the rest of the body is not read
    return Response(failure(error, msgid), error.status, headers, "application/json")
