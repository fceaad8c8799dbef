"""The page's routes: who is let in, what comes back, and addresses of every kind."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from dataclasses import replace
from html import unescape
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest

from group_scores.api import Settings
from group_scores.api.page import COOKIE
from group_scores.api.page_render import POLICY
from group_scores.api.tokens import HEADER
from group_scores.api.words import LANGUAGES, choose, words
from group_scores.reports.text import unguarded
from group_scores.stores import StoreTransientError
from group_scores.stores.sqlite import SqliteStore
from tests.api_client import (
    COURSE,
    Api,
    api,
    make_store,
    member,
    put_row,
    token,
    write_groups,
    write_jwks,
)
from tests.page_world import EVIL, PAGE, World, make_world


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("world"))


@pytest.fixture
def asked(world: World) -> Iterator[Api]:
    with api(world.settings()) as opened:
        yield opened


@pytest.fixture
def guarded(world: World, tmp_path: Path) -> Iterator[Api]:
    """The same with keys: a token is asked for."""
    with api(world.settings(jwks=write_jwks(tmp_path / "jwks.json"))) as opened:
        yield opened


def lines(answer: httpx.Response) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(answer.content.decode("utf-8-sig"), newline="")))


def refused(answer: httpx.Response, status: int, code: str) -> None:
    assert answer.status_code == status
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers["content-security-policy"] == POLICY
    assert answer.headers["cache-control"] == "no-store"
    assert f"<bdi>{code}</bdi>" in answer.text
    for inside in ("Traceback", "127.0.0.1", "sqlite", "assandra:", ".py", "Asha", "u2"):
        assert inside not in answer.text


class TestAnswers:
    @pytest.mark.parametrize("path", [PAGE, f"{PAGE}/members/u1", f"{PAGE}?format=csv"])
    def test_have_the_headers_that_keep_them_to_the_reader(self, asked: Api, path: str) -> None:
        answer = asked.request("GET", path)
        assert answer.status_code == 200
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["content-security-policy"] == POLICY
        assert "unsafe" not in POLICY
        assert POLICY.startswith("default-src 'none'; style-src 'sha256-")

    def test_name_only_what_the_policy_allows(self, asked: Api) -> None:
        text = asked.request("GET", PAGE).text
        assert re.findall(r"""(?:src|href)=["'](?:https?:)?//""", text) == []
        assert re.findall(r"\son\w+=", text) == []
        assert re.findall(r"\sstyle=", text) == []
        assert text.count("<script") == text.count("<style") == 1

    def test_are_logged_and_counted_without_an_id(self, asked: Api) -> None:
        asked.request("GET", PAGE)
        said = asked.request("GET", "/metrics").text
        route = "/groups/{groupId}/activities/{activityId}"
        assert f'requests_total{{route="{route}",status="200"}} 1.0' in said
        assert "g1" not in said

    def test_are_described(self, asked: Api) -> None:
        paths = asked.request("GET", "/openapi.json").json()["paths"]
        described = paths["/groups/{groupId}/activities/{activityId}"]["get"]
        assert set(described["responses"]["200"]["content"]) == {"text/html", "text/csv"}
        assert {"401", "403", "404", "503"} <= set(described["responses"])

    @pytest.mark.parametrize("kind", ["TextBook", "Course"])
    def test_are_of_the_kind_of_activity_that_is_asked_for(self, asked: Api, kind: str) -> None:
        answer = asked.request("GET", f"{PAGE}?activityType={kind}&format=csv")
        enrolled = [one["enrolled"] for one in lines(answer)]
        assert ("yes" in enrolled) == (kind == "Course")

    def test_have_markup_of_others_as_text(self, asked: Api) -> None:
        text = asked.request("GET", PAGE).text
        assert EVIL not in text
        assert "Mallory&lt;script&gt;alert(" in text
        url = re.search(r'href="([^"]+members/u7[^"]+)"', text)
        assert url is not None
        found = asked.request("GET", f"/groups/g1/activities/{unescape(url[1])}")
        assert found.status_code == 200
        assert EVIL not in found.text

    def test_say_nothing_of_attempts_where_none_are_kept(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(SqliteStore, "wants_details", False)
        with api(world.settings()) as opened:
            assert "/members/" not in opened.request("GET", PAGE).text
        monkeypatch.undo()
        with api(world.settings()) as opened:
            said = opened.request("GET", f"{PAGE}/members/u2").text
        assert "<time" not in said
        assert "0 of 10, 0 %" in said

    def test_of_a_group_without_members_or_scores(self, asked: Api) -> None:
        nobody = asked.request("GET", f"/groups/nobody/activities/{COURSE}")
        assert "The group has no active members." in nobody.text
        nothing = asked.request("GET", "/groups/g1/activities/do_2")
        assert "No member has attempted an assessment yet." in nothing.text
        assert nothing.text.count("not enrolled</small>") == 6

    def test_read_a_group_in_one_round(self, asked: Api, monkeypatch: pytest.MonkeyPatch) -> None:
        calls: list[int] = []
        read = SqliteStore.read_activity

        def counted(self: SqliteStore, *words: object, **more: object) -> object:
            calls.append(len(words[2]))  # type: ignore[arg-type]
            return read(self, *words, **more)  # type: ignore[arg-type]

        monkeypatch.setattr(SqliteStore, "read_activity", counted)
        asked.request("GET", PAGE)
        assert calls == [6]


class TestTokens:
    def ways(self, user: str) -> list[dict[str, str]]:
        given = token(user)
        return [
            {HEADER: given},
            {"cookie": f"theme=dark; {COOKIE}={given}"},
            {"authorization": f"Bearer {given}"},
            {"authorization": f"bearer {given}"},
        ]

    def test_come_by_cookie_bearer_or_the_apis_header(self, guarded: Api) -> None:
        for headers in self.ways("u1"):
            assert guarded.request("GET", PAGE, headers=headers).status_code == 200
        for headers in self.ways("u5"):
            refused(guarded.request("GET", PAGE, headers=headers), 403, "NOT_A_MEMBER")

    def test_of_the_cookie_stands_before_a_gateways_own_bearer(self, guarded: Api) -> None:
        headers = {"cookie": f"{COOKIE}={token('u1')}", "authorization": "Bearer the-gateways-key"}
        assert guarded.request("GET", PAGE, headers=headers).status_code == 200

    @pytest.mark.parametrize(
        "headers",
        [
            {},
            {"cookie": f"{COOKIE}="},
            {"cookie": f"other={token()}"},
            {"authorization": f"Basic {token()}"},
            {"authorization": token()},
            {"authorization": "Bearer"},
            {"cookie": f"{COOKIE}={token(exp=1)}"},
            {"cookie": f"{COOKIE}={'x' * 20_000}"},
        ],
        ids=["none", "empty", "other", "basic", "bare", "no bearer", "expired", "long"],
    )
    @pytest.mark.parametrize("path", [PAGE, f"{PAGE}/members/u1", f"{PAGE}?format=csv"])
    def test_that_are_none_are_a_401_in_html(
        self, guarded: Api, headers: dict[str, str], path: str
    ) -> None:
        answer = guarded.request("GET", path, headers=headers)
        refused(answer, 401, "INVALID_TOKEN")
        assert answer.headers["www-authenticate"] == "Bearer"

    def test_are_looked_at_before_the_address(self, guarded: Api) -> None:
        refused(guarded.request("GET", f"{PAGE}?format=pdf"), 401, "INVALID_TOKEN")


class TestErrors:
    @pytest.mark.parametrize(
        ("path", "status", "code"),
        [
            (f"/groups/none/activities/{COURSE}", 404, "GROUP_NOT_FOUND"),
            (f"{PAGE}/members/u5", 404, "MEMBER_NOT_FOUND"),
            (f"{PAGE}/members/someone%20else", 404, "MEMBER_NOT_FOUND"),
            ("/groups/g1", 404, "NOT_FOUND"),
            (f"/groups/g1/activities/{COURSE}/", 404, "NOT_FOUND"),
            (f"{PAGE}?format=pdf", 400, "INVALID_REQUEST"),
            (f"{PAGE}?activityType=", 400, "INVALID_REQUEST"),
            (f"/groups/%20/activities/{COURSE}", 400, "INVALID_REQUEST"),
            (f"/groups/%FF/activities/{COURSE}", 400, "INVALID_REQUEST"),
            (f"/groups/{'x' * 60_000}/activities/{COURSE}", 400, "INVALID_REQUEST"),
            (f"/groups/g1/activities/{'%F0%9F%98%80' * 1_025}", 400, "INVALID_REQUEST"),
        ],
    )
    def test_are_a_page(self, asked: Api, path: str, status: int, code: str) -> None:
        refused(asked.request("GET", path), status, code)

    def test_are_in_the_readers_language(self, asked: Api) -> None:
        answer = asked.request("GET", "/groups/g1", headers={"accept-language": "ar, en;q=0.5"})
        assert '<html lang="ar" dir="rtl">' in answer.text
        assert words("ar")["error_404"] in answer.text

    def test_of_the_method(self, asked: Api) -> None:
        refused(asked.request("POST", PAGE), 405, "METHOD_NOT_ALLOWED")
        assert asked.request("HEAD", PAGE).status_code == 200

    def test_of_a_store_that_is_away(self, asked: Api, monkeypatch: pytest.MonkeyPatch) -> None:
        away = StoreTransientError("sqlite:/secret/place is away")
        monkeypatch.setattr(SqliteStore, "read_activity", lambda *_, **__: [away])
        for path in (PAGE, f"{PAGE}?format=csv", f"{PAGE}/members/u1"):
            answer = asked.request("GET", path)
            refused(answer, 503, "STORE_UNAVAILABLE")
            assert answer.headers["retry-after"] == "1"
            assert "secret" not in answer.text
        monkeypatch.undo()
        assert asked.request("GET", PAGE).status_code == 200

    def test_of_our_own(self, asked: Api, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(*_: object, **__: object) -> None:
            raise RuntimeError("Asha's secret")

        monkeypatch.setattr(SqliteStore, "read_activity", fail)
        answer = asked.request("GET", PAGE)
        refused(answer, 500, "INTERNAL_ERROR")
        assert "secret" not in answer.text

    def test_of_a_host_that_is_not_this_machine(self, asked: Api) -> None:
        answer = asked.request("GET", PAGE, headers={"host": "evil.example.org"})
        refused(answer, 400, "INVALID_REQUEST")


IDS = [
    "a/b",
    "a%2Fb",
    "..%2f..",
    "\"'<b>&",
    "😀👩‍👩‍👧",
    "؛ع ب",
    "' OR 1=1; DROP TABLE user_activity_agg; --",
    "a?b#c",
    "x" * 1_024,
    "a.csv",
    "\u202egnp.exe",
    "\x00\n\r\t",
]


@pytest.mark.parametrize("odd", IDS, ids=range(len(IDS)))
def test_ids_of_every_kind_lead_to_their_own_group_activity_and_member(
    tmp_path: Path, odd: str
) -> None:
    store = make_store(tmp_path / "scores.db")
    put_row(store, odd, course=odd, batch=odd, agg={f"score:{odd}": 7, f"max_score:{odd}": 8})
    put_row(store, "u1", course="other", agg={"score:wrong": 99})
    groups = write_groups(tmp_path / "g.json", {odd: [member(odd)], "a": [member("u1")]})
    with api(Settings(store, groups)) as asked:
        path = f"/groups/{quote(odd, safe='')}/activities/{quote(odd, safe='')}"
        page = asked.request("GET", path)
        assert page.status_code == 200
        assert "7 of 8" in page.text
        assert "wrong" not in page.text
        (line,) = lines(asked.request("GET", f"{path}?format=csv"))
        assert (unguarded(line["user_id"]), unguarded(line["batch_id"])) == (odd, odd)
        found = re.search(r'<a href="([^"]+)" class="attempts"', page.text)
        assert found is not None
        base = httpx.URL(f"http://localhost{path}")
        address = base.join(unescape(found[1]))
        member_page = asked.request("GET", str(address))
        assert member_page.status_code == 200
        assert "7 of 8" in member_page.text
        back = re.search(r'class="back"><a href="([^"]+)"', member_page.text)
        assert back is not None
        assert address.join(unescape(back[1])) == base
        saved = asked.request("GET", f"{path}?format=csv").headers["content-disposition"]
        assert re.fullmatch(r'attachment; filename="[\w.-]+\.csv"; filename\*=[\w.%\'-]+', saved)


def test_an_id_or_a_name_of_70_000_characters_does_not_swamp_the_page(tmp_path: Path) -> None:
    store = make_store(tmp_path / "scores.db")
    long = "y" * 70_000
    put_row(store, long, batch=long, agg={f"score:{long}": 7})
    put_row(store, "u1", batch="b2", agg={"score:a": 1})
    groups = write_groups(tmp_path / "g.json", {"g1": [member(long, name=long), member("u1")]})
    with api(Settings(store, groups)) as asked:
        page = asked.request("GET", PAGE)
        assert len(page.content) < 60_000
        assert "yyy…" in page.text
        assert {line["user_id"] for line in lines(asked.request("GET", f"{PAGE}?format=csv"))} == {
            long,
            "u1",
        }


class TestNames:
    def test_come_from_a_file_and_stand_beside_the_id(self, world: World, tmp_path: Path) -> None:
        path = tmp_path / "names.json"
        path.write_text('{"quiz-a": "First <quiz>", "do_1": "A & course", "quiz-b": ""}')
        with api(replace(world.settings(), names=str(path))) as asked:
            page = asked.request("GET", PAGE).text
            head = lines(asked.request("GET", f"{PAGE}?format=csv"))[0]
        assert "<bdi>First &lt;quiz&gt;</bdi> <small><bdi>quiz-a</bdi></small>" in page
        assert "<h1>Best scores: <bdi>A &amp; course</bdi></h1>" in page
        assert "<bdi>quiz-b</bdi>" in page
        assert "score:First <quiz> (quiz-a)" in head

    def test_of_members_are_shown_where_known(self, asked: Api) -> None:
        page = asked.request("GET", PAGE).text
        assert '<bdi class="name">Asha</bdi> <small class="id"><bdi>u1</bdi></small>' in page
        assert '<bdi class="name">u3</bdi>' in page


class TestLanguages:
    @pytest.mark.parametrize("lang", LANGUAGES)
    def test_say_all_with_the_same_values(self, lang: str) -> None:
        assert words(lang).places() == words("en").places()
        assert all(words(lang)[key].strip() for key in words("en").places())
        assert words(lang).dir == ("rtl" if lang in ("ar", "ur") else "ltr")

    @pytest.mark.parametrize(
        ("asked", "accepted", "wanted"),
        [
            (None, None, "en"),
            (None, "", "en"),
            ("hi", "ar", "hi"),
            ("fr", "ar", "ar"),
            (None, "fr-FR, ur-PK;q=0.8, en;q=0.9", "en"),
            (None, "HI-in", "hi"),
            (None, "ar;q=0, hi;q=0.1", "hi"),
            (None, "ar;q=x", "en"),
            (None, "*;q=nan,,;;", "en"),
            ("../../etc", None, "en"),
        ],
    )
    def test_are_chosen(self, asked: str | None, accepted: str | None, wanted: str) -> None:
        assert choose(asked, accepted).lang == wanted

    @pytest.mark.parametrize("lang", LANGUAGES)
    def test_keep_what_is_asked_for_in_their_links(self, asked: Api, lang: str) -> None:
        page = asked.request("GET", f"{PAGE}?activityType=Course&lang={lang}")
        assert f'<html lang="{lang}"' in page.text
        assert page.headers["content-language"] == lang
        assert f"{COURSE}?lang={lang}&amp;format=csv" in page.text
        for other in LANGUAGES:
            assert f'href="?lang={other}"' in page.text


def test_a_large_group_is_shown_in_part_and_saved_whole(tmp_path: Path) -> None:
    store = make_store(tmp_path / "scores.db")
    put_row(store, "u0", agg={f"score:{number}": 1 for number in range(995)})
    groups = {"g1": [member(f"u{number}") for number in range(60)]}
    with api(Settings(store, write_groups(tmp_path / "g.json", groups))) as asked:
        page = asked.request("GET", PAGE).text
        assert page.count("<tr>") == 1 + 30 + 1
        assert "The first <bdi>30</bdi> of <bdi>60</bdi> members" in page
        assert len(lines(asked.request("GET", f"{PAGE}?format=csv"))) == 60
