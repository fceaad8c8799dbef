"""The description of the API, made from the types that it is answered with."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import msgspec

from group_scores.api.contract import Answer, Body, ErrorAnswer, Id
from group_scores.api.page import COOKIE, GROUP, MEMBER
from group_scores.api.tokens import HEADER
from group_scores.api.words import LANGUAGES

_ERRORS = {
    "400": "The body is missing, is no JSON, or lacks an id.",
    "401": "There is no token, or it does not verify.",
    "403": "The caller is not an active member of the group.",
    "404": "There is no such group.",
    "413": "The body or the group is larger than the server takes.",
    "500": "Something went wrong.",
    "503": "The scores or the groups cannot be read now, or too many ask at once.",
}
_REF = "#/components/schemas/"


def describe(paths: Sequence[str]) -> dict[str, Any]:
    """Return the OpenAPI document; the API is served at each of `paths`."""
    _, schemas = msgspec.json.schema_components(
        [Body, Answer, ErrorAnswer], ref_template=f"{_REF}{{name}}"
    )
    return {
        "openapi": "3.1.0",
        "info": {"title": "Group activity aggregates", "version": _version()},
        "paths": {
            **{path: {"post": _operation(number)} for number, path in enumerate(paths)},
            **_pages(),
            "/health": {"get": _plain("health", "The process is up.")},
            "/ready": {"get": _plain("ready", "The store answers.", _unready())},
            "/metrics": {"get": _plain("metrics", "Metrics for Prometheus.", kind="text/plain")},
        },
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "token": {"type": "apiKey", "in": "header", "name": HEADER},
                "cookie": {"type": "apiKey", "in": "cookie", "name": COOKIE},
                "bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
            },
        },
    }


def _operation(number: int) -> dict[str, Any]:
    return {
        "operationId": f"groupActivityAgg{number or ''}",
        "summary": "The active members of a group with their best scores in an activity",
        "security": [{"token": []}],
        "parameters": [
            {
                "name": "x-msgid",
                "in": "header",
                "description": "The answer's msgid; a new one where it is over 256 characters.",
                "schema": {"type": "string"},
            }
        ],
        "requestBody": {"required": True, "content": _json("Body")},
        "responses": {
            "200": {"description": "The aggregates.", "content": _json("Answer")},
            **{
                status: {"description": text, "content": _json("ErrorAnswer")}
                for status, text in _ERRORS.items()
            },
        },
    }


_PAGE_ERRORS = _ERRORS | {
    "400": "An id is empty or too long, or the format is unknown.",
    "404": "There is no such group, or no such active member.",
}


def _pages() -> dict[str, Any]:
    html = {"text/html": {"schema": {"type": "string"}}}
    table = {"text/csv": {"schema": {"type": "string"}}}
    form = {"name": "format", "in": "query", "schema": {"enum": ["html", "csv"]}}
    group = _page("groupPage", "A group's best scores in an activity", ("groupId", "activityId"))
    group["parameters"].append(form)
    group["responses"]["200"] = {"description": "The page.", "content": html | table}
    names = ("groupId", "activityId", "userId")
    return {
        GROUP: {"get": group},
        MEMBER: {"get": _page("memberPage", "A member's attempts over time", names)},
    }


def _page(name: str, text: str, places: Sequence[str]) -> dict[str, Any]:
    html = {"text/html": {"schema": {"type": "string"}}}
    word = msgspec.json.schema(Id)
    path = [{"name": one, "in": "path", "required": True, "schema": word} for one in places]
    kind = {"name": "activityType", "in": "query", "schema": word}
    known = f"{', '.join(LANGUAGES)}; for any other what the browser prefers of them."
    lang = {"name": "lang", "in": "query", "description": known, "schema": {"type": "string"}}
    # A path that is shortened on its way, by `..` say, is none of the page's.
    elsewhere = html | _json("ErrorAnswer")
    errors = {
        status: {"description": said, "content": elsewhere if status in ("400", "404") else html}
        for status, said in _PAGE_ERRORS.items()
    }
    return {
        "operationId": name,
        "summary": text,
        "security": [{"token": []}, {"cookie": []}, {"bearer": []}],
        "parameters": [*path, kind, lang],
        "responses": {"200": {"description": "The page.", "content": html}, **errors},
    }


def _plain(
    name: str, text: str, more: dict[str, Any] | None = None, kind: str = "application/json"
) -> dict[str, Any]:
    content = {kind: {"schema": {"type": "string" if kind == "text/plain" else "object"}}}
    # Those that ask for no token answer 400 to a host header of elsewhere.
    local = {
        "description": "The host header names another machine.",
        "content": _json("ErrorAnswer"),
    }
    answers = {"200": {"description": text, "content": content}, "400": local, **(more or {})}
    return {"operationId": name, "summary": text, "responses": answers}


def _unready() -> dict[str, Any]:
    return {
        "503": {
            "description": "The store, or the table of groups, cannot be read now.",
            "content": {"application/json": {"schema": {"type": "object"}}},
        }
    }


def _json(name: str) -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": f"{_REF}{name}"}}}


def _version() -> str:
    try:
        return version("group-scores")
    except PackageNotFoundError:
        return "0"
