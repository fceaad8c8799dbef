"""What the OpenAPI description says holds: schemathesis asks a server that verifies tokens."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import httpx
import jsonschema_rs
import msgspec
import pytest
import schemathesis
from hypothesis import HealthCheck, settings

from group_scores.api.app import PATHS
from group_scores.api.contract import parse_body
from group_scores.api.errors import ApiError
from group_scores.api.openapi import describe
from group_scores.api.tokens import HEADER
from tests.api_client import make_store, member, put_row, token, write_groups, write_jwks
from tests.integration.test_api_process import Served, served

GROUP = "g1"
NAMES = ("groupId", "activityId", "activityType")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A group with rows of every kind."""
    folder = tmp_path_factory.mktemp("description")
    store = make_store(folder / "scores.db")
    put_row(store, "u1", agg={"score:a": 1}, aggregates={"score:a": 0.5}, updated={"score:a": 2})
    put_row(store, "u2", batch="b2", aggregates={"score:a": 1e300})
    groups = {GROUP: [member("u1"), member("u2"), {"userId": "u3", "status": "active"}]}
    words = ["--groups", write_groups(folder / "groups.json", groups), "--store", store]
    words += ["--jwks", write_jwks(folder / "jwks.json")]
    with served(folder, *words) as opened:
        yield opened


CONFIG = schemathesis.Config.from_dict({"generation": {"deterministic": True}})
schema = schemathesis.openapi.from_dict(describe(PATHS), config=CONFIG)
CALLERS: dict[str, dict[str, str]] = {
    "member": {HEADER: token("u1")},
    "stranger": {HEADER: token("u9")},
    "expired": {HEADER: token("u1", exp=1)},
    "nobody": {},
}
MANY = settings(max_examples=2_000, deadline=None, suppress_health_check=list(HealthCheck))
FEW = settings(MANY, max_examples=20, derandomize=True, database=None)


def test_what_is_served_is_what_is_checked(server: Served) -> None:
    served_description = httpx.get(f"{server.url}/openapi.json").json()
    assert served_description == msgspec.to_builtins(describe(PATHS))


def test_what_is_blank_is_so_in_any_language() -> None:
    """A pattern of JSON schema is ECMAScript's, whose whitespace is not Python's."""
    as_described = jsonschema_rs.validator_for(
        {"$ref": "#/components/schemas/Body", "components": describe(PATHS)["components"]}
    ).is_valid
    wrong = []
    for char in [*map(chr, range(0x3100)), "\ufeff", "\ufffe"]:
        body = {"request": {"groupId": char, "activityId": "do_1", "activityType": "Course"}}
        if as_described(body) != is_taken(body):
            wrong.append(char)
    assert not wrong


@pytest.mark.parametrize("char", ["\x1c", "\x1f", "\x85", "\ufeff", "\xa0", " ", "\u200b", "\x00"])
def test_the_page_takes_what_its_description_takes(server: Served, char: str) -> None:
    for path, item in describe(PATHS)["paths"].items():
        for place in item.get("get", {}).get("parameters", ()):
            if place["name"] not in (*NAMES, "userId"):
                continue
            given = dict.fromkeys(("groupId", "activityId", "userId"), "x") | {place["name"]: char}
            where = path.format_map({name: quote(text, safe="") for name, text in given.items()})
            if place["in"] == "query":
                where += f"?{place['name']}={quote(char)}"
            answer = httpx.get(server.url + where, headers=CALLERS["member"])
            described = jsonschema_rs.is_valid(place["schema"], char)
            assert (answer.status_code != 400) == described, where


def is_taken(body: object) -> bool:
    try:
        parse_body(msgspec.json.encode(body))
    except ApiError:
        return False
    return True


@schema.parametrize()
@FEW
def test_every_answer_is_described(server: Served, case: Any) -> None:
    check(server, case)


@pytest.mark.soak
@schema.parametrize()
@MANY
def test_every_answer_is_described_at_length(server: Served, case: Any) -> None:
    check(server, case)


def check(server: Served, case: Any) -> None:
    """Ask with every kind of token, for the group that is there and for the one that was drawn."""
    case.call_and_validate(base_url=server.url, headers=CALLERS["member"])
    if not case.path.endswith("/agg"):
        return
    in_group(case)
    for headers in CALLERS.values():
        case.call_and_validate(base_url=server.url, headers=headers)


def in_group(case: Any) -> None:
    """Put the group that is there in the place of a drawn one, if one was drawn as described."""
    asked = case.body.get("request") if isinstance(case.body, dict) else None
    if not isinstance(asked, dict):
        return
    if is_taken({"request": dict.fromkeys(NAMES, asked.get("groupId"))}):
        case.body = case.body | {"request": asked | {"groupId": GROUP}}
