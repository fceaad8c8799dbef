"""What bad input gets, and a group service that is slow, wrong or away."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import jwt
import pytest

from group_scores.api import Settings
from group_scores.stores.sqlite import SqliteStore
from tests.api_client import (
    PATH,
    Api,
    GroupService,
    Said,
    api,
    failed,
    group_answer,
    make_store,
    member,
    put_row,
    token,
    write_groups,
    write_jwks,
)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    store = make_store(tmp_path / "scores.db")
    put_row(store, "u1", agg={"score:a": 1})
    return Settings(store, write_groups(tmp_path / "groups.json", {"g1": [member("u1")]}))


@pytest.fixture
def asked(settings: Settings) -> Iterator[Api]:
    with api(settings) as opened:
        yield opened


def body(**parts: object) -> bytes:
    request = {"groupId": "g1", "activityId": "do_1", "activityType": "Course"} | parts
    return json.dumps({"request": request}, ensure_ascii=False).encode()


BAD = {
    "nothing": b"",
    "no JSON": b"hello",
    "cut off": body()[:-3],
    "more behind it": body() + b"{}",
    "bytes": b"\xff\xfe\x00",
    "half a surrogate": b'{"request":{"groupId":"\\ud800"}}',
    "deep": b"[" * 100_000,
    "deep and not looked at": b'{"x":' + b"[" * 100_000,
    "null": b"null",
    "a list": b"[]",
    "a number": b"7",
    "no request": b"{}",
    "request is null": b'{"request":null}',
    "request is a list": b'{"request":[]}',
    **{f"no {name}": body(**{name: None}) for name in ("groupId", "activityId", "activityType")},
    "a number for an id": body(groupId=7),
    "a list for an id": body(activityId=["do_1"]),
    "an object for a type": body(activityType={"a": 1}),
    "an empty id": body(groupId=""),
    "blanks for an id": body(activityId="  \t"),
    "70,000 characters": body(groupId="x" * 70_000),
    "70,000 emoji": body(activityId="😀" * 35_000),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_body_is_a_client_error(asked: Api, name: str) -> None:
    answer = asked.request("POST", PATH, content=BAD[name])
    failed(answer, 400, "INVALID_REQUEST", "CLIENT_ERROR")
    assert len(answer.content) < 600


def test_an_id_that_is_missing_is_named(asked: Api) -> None:
    for name in ("groupId", "activityId", "activityType"):
        request = json.loads(body())
        del request["request"][name]
        answer = asked.request("POST", PATH, json=request)
        assert name in failed(answer, 400, "INVALID_REQUEST", "CLIENT_ERROR")["errmsg"]


@pytest.mark.parametrize(
    "text",
    [
        "'",
        '"',
        "';DROP TABLE user_activity_agg;--",
        "g1' OR '1'='1",
        "😀",
        "\0",
        "../g1",
        "%",
        "g_",
    ],
)
def test_ids_are_taken_as_they_are(asked: Api, text: str) -> None:
    failed(asked.post(text), 404, "GROUP_NOT_FOUND", "RESOURCE_NOT_FOUND")
    for how in ({"course": text}, {"kind": text}):
        assert asked.post(**how).json()["result"]["members"] == []
    assert len(asked.post().json()["result"]["members"]) == 1


class TestLimits:
    def test_a_large_body_is_not_read(self, asked: Api) -> None:
        sent = 0

        def chunks() -> Iterator[bytes]:
            nonlocal sent
            for _ in range(1600):
                sent += 1
                yield b" " * 65_536

        async def body() -> Any:
            for chunk in chunks():
                yield chunk

        answer = asked.request("POST", PATH, content=body())
        failed(answer, 413, "TOO_LARGE", "CLIENT_ERROR")
        assert answer.headers["connection"] == "close"
        assert sent < 20
        announced = {"content-length": "100000000"}
        answer = asked.request("POST", PATH, content=b"{}", headers=announced)
        failed(answer, 413, "TOO_LARGE", "CLIENT_ERROR")

    def test_a_large_group_is_refused(self, settings: Settings, tmp_path: Path) -> None:
        service = GroupService(lambda path: group_answer(*(member(f"u{n}") for n in range(11))))
        with service.serving():
            limited = replace(settings, groups=service.url, members=10)
            with api(limited) as asked:
                failed(asked.post(), 413, "TOO_LARGE", "CLIENT_ERROR")
            with api(replace(limited, members=11)) as asked:
                assert asked.post().status_code == 200

    def test_too_many_at_once_are_told_to_come_again(self, settings: Settings) -> None:
        service = GroupService(lambda path: replace(group_answer(member("u1")), wait_s=0.3))
        with (
            service.serving(),
            api(replace(settings, groups=service.url, requests=2)) as asked,
        ):

            async def together() -> list[Any]:
                each = [asked._request("POST", PATH, content=body()) for _ in range(5)]
                healthy = asked._request("GET", "/health")
                return await asyncio.gather(*each, healthy)

            *answers, health = asked.runner.run(together())
        assert sorted(one.status_code for one in answers) == [200, 200, 503, 503, 503]
        assert health.status_code == 200
        busy = next(one for one in answers if one.status_code == 503)
        failed(busy, 503, "TOO_BUSY", "SERVER_ERROR")
        assert busy.headers["retry-after"] == "1"


class TestPaths:
    def test_that_are_unknown_have_the_envelope_too(self, asked: Api) -> None:
        failed(asked.request("GET", "/"), 404, "NOT_FOUND", "RESOURCE_NOT_FOUND")
        answer = asked.request("GET", PATH)
        failed(answer, 405, "METHOD_NOT_ALLOWED", "CLIENT_ERROR")
        assert answer.headers["allow"] == "POST"

    @pytest.mark.parametrize("host", ["evil.example.org", "evil.example.org:80", "127.0.0.1.a.b"])
    def test_of_another_host_are_refused_without_keys(
        self, settings: Settings, tmp_path: Path, host: str
    ) -> None:
        with api(settings) as asked:
            answer = asked.request("POST", PATH, content=body(), headers={"host": host})
            failed(answer, 400, "INVALID_REQUEST", "CLIENT_ERROR")
        with api(replace(settings, jwks=write_jwks(tmp_path / "jwks.json"))) as asked:
            assert asked.post(token=token(), headers={"host": host}).status_code == 200

    @pytest.mark.parametrize("host", ["localhost", "LOCALHOST:80", "127.0.0.1:8000", "[::1]:1"])
    def test_of_this_machine_are_not(self, asked: Api, host: str) -> None:
        answer = asked.request("POST", PATH, content=body(), headers={"host": host})
        assert answer.status_code == 200


HTML = Said(body=b"<html><body>Welcome to nginx at 10.1.2.3</body></html>")
Ask = Callable[..., Any]


class TestGroupService:
    @pytest.fixture
    def ask(self, settings: Settings, tmp_path: Path) -> Ask:
        """Ask once, with the service that answers so, and return both."""

        def once(*said: Said, group: str = "g1", user: str = "u1", timeout_s: float = 5) -> Any:
            left = list(said)
            service = GroupService(lambda path: left.pop(0) if len(left) > 1 else left[0])
            with service.serving():
                wanted = replace(
                    settings,
                    groups=service.url,
                    group_service_timeout_s=timeout_s,
                    jwks=write_jwks(tmp_path / "jwks.json"),
                )
                with api(wanted) as asked:
                    sent = {"x-request-id": "r-7"}
                    return asked.post(group, token=token(user), headers=sent), service.asked

        return once

    def test_is_asked_with_the_callers_token(self, ask: Ask) -> None:
        answer, asked = ask(group_answer(member("u1", name="Asha")))
        (found,) = answer.json()["result"]["members"]
        assert (found["userId"], found["name"], found["role"]) == ("u1", "Asha", "member")
        ((path, headers),) = asked
        assert path == "/api/private/v1/group/read/g1?fields=members"
        assert jwt_of(headers) == "u1"
        assert headers["x-request-id"] == "r-7"

    @pytest.mark.parametrize(
        ("group", "path"),
        [("a/b?c#d", "a%2Fb%3Fc%23d"), ("é😀", "%C3%A9%F0%9F%98%80"), ("%2e", "%252e")],
    )
    def test_is_asked_for_no_other_path(self, ask: Ask, group: str, path: str) -> None:
        _, ((asked, _),) = ask(Said(404), group=group)
        assert asked == f"/api/private/v1/group/read/{path}?fields=members"

    @pytest.mark.parametrize("group", [".", ".."])
    def test_is_not_asked_for_what_is_a_path(self, ask: Ask, group: str) -> None:
        answer, asked = ask(group_answer(), group=group)
        failed(answer, 404, "GROUP_NOT_FOUND", "RESOURCE_NOT_FOUND")
        assert asked == []

    @pytest.mark.parametrize(
        ("said", "status", "code", "response_code"),
        [
            (Said(404), 404, "GROUP_NOT_FOUND", "RESOURCE_NOT_FOUND"),
            (Said(401), 401, "INVALID_TOKEN", "UNAUTHORIZED"),
            (Said(403), 403, "NOT_A_MEMBER", "FORBIDDEN"),
            (Said(500, HTML.body), 503, "GROUPS_UNAVAILABLE", "SERVER_ERROR"),
            (Said(302), 503, "GROUPS_UNAVAILABLE", "SERVER_ERROR"),
            (HTML, 503, "GROUPS_UNAVAILABLE", "SERVER_ERROR"),
            (Said(), 503, "GROUPS_UNAVAILABLE", "SERVER_ERROR"),
            (Said(body=b"{}"), 503, "GROUPS_UNAVAILABLE", "SERVER_ERROR"),
            (
                Said(body=b'{"result":{"members":[{"userId":7}]}}'),
                503,
                "GROUPS_UNAVAILABLE",
                "SERVER_ERROR",
            ),
            (Said(body=b'{"result":{"members":null}}'), 403, "NOT_A_MEMBER", "FORBIDDEN"),
            (group_answer(member("u2")), 403, "NOT_A_MEMBER", "FORBIDDEN"),
            (group_answer(member("u1", "inactive")), 403, "NOT_A_MEMBER", "FORBIDDEN"),
        ],
        ids=lambda value: str(value)[:40],
    )
    def test_decides_the_answer(
        self, ask: Ask, said: Said, status: int, code: str, response_code: str
    ) -> None:
        answer, asked = ask(said)
        failed(answer, status, code, response_code)
        assert "nginx" not in answer.text
        assert len(asked) == 1

    def test_that_is_away_for_a_moment_is_asked_again(self, ask: Ask) -> None:
        answer, asked = ask(Said(503), Said(502), group_answer(member("u1")))
        assert (answer.status_code, len(asked)) == (200, 3)
        answer, asked = ask(Said(503))
        failed(answer, 503, "GROUPS_UNAVAILABLE", "SERVER_ERROR")
        assert len(asked) == 3

    def test_that_is_slow_is_not_waited_for(self, ask: Ask) -> None:
        begun_s = time.monotonic()
        answer, _ = ask(replace(group_answer(member("u1")), wait_s=1.5), timeout_s=0.3)
        failed(answer, 503, "GROUPS_UNAVAILABLE", "SERVER_ERROR")
        assert time.monotonic() - begun_s < 1.4

    def test_that_is_away_is_a_503(self, settings: Settings) -> None:
        with GroupService(lambda path: HTML).serving() as service:
            pass
        with api(replace(settings, groups=service.url)) as asked:
            failed(asked.post(), 503, "GROUPS_UNAVAILABLE", "SERVER_ERROR")
            assert asked.request("GET", "/health").status_code == 200

    def test_gets_no_token_that_is_no_header(self, settings: Settings) -> None:
        with GroupService(lambda path: group_answer(member("u1"))).serving() as service:
            with api(replace(settings, groups=service.url)) as asked:
                headers = {"x-authenticated-user-token": "\xe9".encode("latin-1")}
                answer = asked.request("POST", PATH, content=body(), headers=headers)
            assert answer.status_code == 200
            assert "x-authenticated-user-token" not in service.asked[0][1]


def jwt_of(headers: dict[str, str]) -> str:
    claims = jwt.decode(headers["x-authenticated-user-token"], options={"verify_signature": False})
    return str(claims["sub"]).rpartition(":")[2]


class TestStore:
    def test_that_is_away_is_a_503_until_it_comes_back(self, settings: Settings) -> None:
        path = Path(settings.store.removeprefix("sqlite:"))
        away = path.with_suffix(".away")
        with api(settings) as asked:
            path.rename(away)
            failed(asked.post(), 503, "STORE_UNAVAILABLE", "SERVER_ERROR")
            ready = asked.request("GET", "/ready")
            assert (ready.status_code, ready.json()["reason"]) == (503, "STORE_UNAVAILABLE")
            assert asked.request("GET", "/health").status_code == 200
            away.rename(path)
            assert asked.post().status_code == 200
            assert asked.request("GET", "/ready").status_code == 200

    def test_that_hangs_is_not_waited_for(
        self, settings: Settings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        free = threading.Event()
        monkeypatch.setattr(SqliteStore, "read_activity", lambda *_, **__: free.wait(5) and [])
        with api(replace(settings, store_s=0.2, threads=1)) as asked:
            for _ in range(2):  # the second waits for a thread
                failed(asked.post(), 503, "STORE_UNAVAILABLE", "SERVER_ERROR")
            free.set()

    def test_an_error_of_ours_shows_nothing(
        self,
        settings: Settings,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        def fail(*_: Any, **__: Any) -> None:
            raise RuntimeError("u1 has said geheim to 10.0.0.1")

        monkeypatch.setattr(SqliteStore, "read_activity", fail)
        with api(settings) as asked, caplog.at_level(logging.INFO):
            answer = asked.post()
        failed(answer, 500, "INTERNAL_ERROR", "SERVER_ERROR")
        assert "geheim" not in answer.text + caplog.text
        assert "unexpected RuntimeError at test_api_errors.py:" in caplog.text


def test_the_log_has_a_line_a_request_without_token_or_names(
    settings: Settings, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    secret = token()
    with (
        api(replace(settings, jwks=write_jwks(tmp_path / "jwks.json"))) as asked,
        caplog.at_level(logging.INFO),
    ):
        asked.post(token=secret, headers={"x-request-id": "r-1"})
        asked.post(token=secret[:-2])
        asked.request("GET", "/groups/g1?user=u1")
        asked.request("BREW", "/health")
    lines = [record for record in caplog.records if record.name == "group_scores.access"]
    fields = [record.__dict__["fields"] for record in lines]
    assert [(one["method"], one["route"], one["status"]) for one in fields] == [
        ("POST", PATH, 200),
        ("POST", PATH, 401),
        ("GET", "other", 404),
        ("other", "/health", 405),
    ]
    assert fields[0]["request_id"] == "r-1"
    for record in lines:
        said = record.getMessage() + str(record.__dict__["fields"])
        assert not [word for word in (secret, "u1", "g1", "BREW") if word in said]
