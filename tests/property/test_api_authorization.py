"""Whoever asks, for whatever group: nobody of a group that the caller is no active member of."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from group_scores.api import Settings
from group_scores.api.page import COOKIE
from group_scores.api.tokens import HEADER
from tests.api_client import (
    COURSE,
    Api,
    GroupService,
    Said,
    api,
    group_answer,
    make_store,
    member,
    put_row,
    rsa_key,
    token,
    unsigned,
    write_jwks,
)

USERS = ("u1", "u2", "u3", "u4")
GROUPS = ("g1", "g2", "g3")

members = st.lists(
    st.builds(
        member,
        st.sampled_from(USERS),
        st.sampled_from(["active", "active", "inactive", "Active", "", "removed"]),
    ),
    max_size=6,
)
good = st.sampled_from(USERS).map(lambda user: (user, token(user)))
bad = st.one_of(
    st.just(None),
    st.sampled_from(USERS).map(lambda user: token(user, exp=int(time.time()) - 1)),
    st.sampled_from(USERS).map(lambda user: token(user, key=rsa_key("two"))),
    st.sampled_from(USERS).map(lambda user: token(user, kid="k2")),
    st.sampled_from(USERS).map(lambda user: unsigned({"alg": "none", "kid": "k1"}, user)),
    st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=30),
).map(lambda text: (None, text))
WAYS: dict[str, Callable[[str], dict[str, str]]] = {
    "header": lambda token: {HEADER: token},
    "cookie": lambda token: {"cookie": f"{COOKIE}={token}"},
    "bearer": lambda token: {"authorization": f"Bearer {token}"},
}
asks = st.lists(
    st.tuples(st.sampled_from((*GROUPS, "g9")), st.one_of(good, good, bad)), min_size=1, max_size=6
)


@pytest.fixture(scope="module", params=["kept here", "kept in Redis"])
def world(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Api, dict[str, Any]]]:
    """A server that keeps rows for a minute, on a group service whose groups are drawn."""
    cache = None
    if request.param == "kept in Redis":
        cache = request.getfixturevalue("redis_server").url
    folder: Path = tmp_path_factory.mktemp("api")
    store = make_store(folder / "scores.db")
    for number, user in enumerate(USERS):
        put_row(store, user, agg={f"score:{user}": number}, updated={f"score:{user}": number})
    groups: dict[str, Any] = {}

    def say(path: str) -> Said:
        found = groups.get(path.rpartition("/")[2].partition("?")[0])
        return Said(404) if found is None else group_answer(*found)

    with GroupService(say).serving() as service:
        jwks = write_jwks(folder / "jwks.json")
        with api(Settings(store, service.url, jwks=jwks, cache_s=60, cache=cache)) as asked:
            yield asked, groups


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(
    drawn=st.fixed_dictionaries(dict.fromkeys(GROUPS, members)),
    asked_for=asks,
    way=st.sampled_from([*WAYS]),
)
def test_an_answer_holds_only_members_of_a_group_that_the_caller_is_active_in(
    world: tuple[Api, dict[str, Any]], drawn: dict[str, Any], asked_for: list[Any], way: str
) -> None:
    server, groups = world
    groups.clear()
    groups.update(drawn)
    for group, (caller, sent) in asked_for:
        # Of a member who stands twice the last entry counts.
        status = {one["userId"]: one["status"] for one in drawn.get(group, [])}
        active = {user for user, is_now in status.items() if is_now == "active"}
        answer = server.post(group, token=sent, course=COURSE)
        if caller is None:
            expected = 401
        elif group not in drawn:
            expected = 404
        else:
            expected = 200 if caller in active else 403
        assert answer.status_code == expected
        if expected == 200:
            shown = {one["userId"]: one for one in answer.json()["result"]["members"]}
            assert set(shown) == active
            for user, one in shown.items():
                assert [metric["metric"] for metric in one["agg"]] == [f"score:{user}"]
        else:
            assert answer.json()["result"] == {}
            assert not [user for user in USERS if user in answer.text]
        check_pages(server, group, active if expected == 200 else set(), sent, way, expected)


def check_pages(
    server: Api, group: str, seen: set[str], sent: str | None, way: str, expected: int
) -> None:
    """Assert the same of the page, the CSV, and each member's page."""
    page = f"/groups/{group}/activities/{COURSE}"
    headers = WAYS[way](sent) if sent else {}
    for path in (page, f"{page}?format=csv"):
        answer = server.request("GET", path, headers=headers)
        assert answer.status_code == expected
        assert {user for user in USERS if user in answer.text} == seen
        assert {user for user in USERS if f"score:{user}" in answer.text} == (
            seen if "csv" in path else set()
        )
    for user in USERS:
        answer = server.request("GET", f"{page}/members/{user}", headers=headers)
        wanted = expected if expected != 200 or user in seen else 404
        assert answer.status_code == wanted
        shown = {one for one in USERS if one in answer.text}
        assert shown == ({user} if wanted == 200 else set())
