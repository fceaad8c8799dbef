"""Names from a content service that answers well, late, wrongly, elsewhere or not at all."""

from __future__ import annotations

import asyncio
import json
import pickle
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

from group_scores.reports.content_names import ContentNames
from group_scores.reports.names import ContentService, Names, NameSource
from group_scores.stores import AddressError
from tests.api_client import GroupService, Said, api
from tests.page_world import PAGE, make_world

READ = "/api/content/v3/read/"


def content(name: object) -> Said:
    result = {"content": {"identifier": "do_1", "name": name}}
    return Said(body=json.dumps({"responseCode": "OK", "result": result}).encode())


def refusal(status: int, code: str = "RESOURCE_NOT_FOUND") -> Said:
    return Said(status, json.dumps({"responseCode": code, "result": {}}).encode())


def asked_for(path: str) -> str:
    parts = urlsplit(path)
    assert parts.path.startswith(READ)
    assert parts.query == "fields=name"
    return unquote(parts.path.removeprefix(READ))


def service(say: Callable[[str], Said]) -> Any:
    """A content service that answers by the id."""
    return GroupService(lambda path: say(asked_for(path))).serving()


def ask(url: str, *contents: str, known: Names = Names(), **limits: Any) -> dict[str, str]:
    made = replace(ContentService.for_report(url), **limits)
    with NameSource(known, made).open() as names:
        return dict(names.names_of(contents).by_id)


class TestAddress:
    @pytest.mark.parametrize(
        ("base", "url"),
        [
            ("http://content:9000", "http://content:9000/content/v3/read"),
            ("https://h/action/", "https://h/action/content/v3/read"),
            ("https://h/api/content/v1/read", "https://h/api/content/v1/read"),
            ("https://h/api/content/v1/read/", "https://h/api/content/v1/read"),
        ],
    )
    def test_is_a_base_or_all_before_the_id(self, base: str, url: str) -> None:
        assert ContentService.for_report(base).url == url
        assert ContentService.for_server(base).url == url

    @pytest.mark.parametrize(
        "base", ["content:9000", "ftp://h", "http://", "http://u:p@h", "h?x=1"]
    )
    def test_that_is_none_is_refused(self, base: str) -> None:
        with pytest.raises(AddressError, match="--content-service"):
            ContentService.for_report(base)


class TestNames:
    def test_are_asked_for_by_any_id_once(self) -> None:
        ids = ["do_1", "a/../b", "?x=1#y", "é🙂", "%2F", '"quoted"']
        with service(lambda one: content(f"The {one}")) as running:
            assert ask(running.url, *ids, *ids) == {one: f"The {one}" for one in ids}
            assert len(running.asked) == len(ids)

    @pytest.mark.parametrize("content_id", ["", ".", "..", "\ud800", "x" * 1_001])
    def test_are_not_asked_for_by_what_is_no_id(self, content_id: str) -> None:
        with service(lambda _: content("never")) as running:
            assert ask(running.url, content_id) == {}
            assert running.asked == []

    def test_of_the_file_come_first(self) -> None:
        with service(lambda one: content(f"its {one}")) as running:
            found = ask(running.url, "a", "b", known=Names({"a": "mine", "z": "not asked for"}))
            assert found == {"a": "mine", "b": "its b"}
            assert len(running.asked) == 1

    @pytest.mark.parametrize(
        ("name", "shown"),
        [
            ("=1+1", "=1+1"),
            (" two\nlines\t<b> ", "two lines <b>"),
            ("  ", None),
            (None, None),
            ("x" * 501, "x" * 499 + "…"),
        ],
    )
    def test_are_one_line_that_is_not_without_end(self, name: object, shown: str | None) -> None:
        with service(lambda _: content(name)) as running:
            assert ask(running.url, "a").get("a") == shown

    @pytest.mark.parametrize("status", [400, 404, 410, 414])
    def test_that_are_not_known_leave_the_id_without_a_word(
        self, status: int, caplog: pytest.LogCaptureFixture
    ) -> None:
        with service(lambda one: refusal(status) if one == "a" else content("B")) as running:
            assert ask(running.url, "a", "b") == {"b": "B"}
        assert caplog.messages == []

    def test_are_asked_for_a_few_at_a_time(self) -> None:
        most = 0
        lock, inside = threading.Lock(), [0]

        def say(_: str) -> Said:
            nonlocal most
            with lock:
                inside[0] += 1
                most = max(most, inside[0])
            threading.Event().wait(0.02)
            with lock:
                inside[0] -= 1
            return content("x")

        with service(say) as running:
            assert len(ask(running.url, *map(str, range(40)), at_once=4)) == 40
        assert 2 <= most <= 4

    def test_source_travels_to_workers(self) -> None:
        source = NameSource(Names({"a": "A"}), ContentService.for_report("http://h"))
        assert pickle.loads(pickle.dumps(source)) == source


WRONG = {
    "HTML": Said(body=b"<!DOCTYPE html><p>Sign in"),
    "HTML 404": Said(404, b"<h1>Not Found"),
    "a gateway's 404": Said(404, b'{"message": "no Route matched with those values"}'),
    "no content": Said(body=b'{"result": {}}'),
    "deep": Said(body=b"[" * 100_000),
    "no UTF-8": Said(body=b'{"result": {"content": {"name": "\xff"}}}'),
    "name is a number": Said(body=b'{"result": {"content": {"name": 1}}}'),
    "401": Said(401, b"{}"),
    "500": refusal(500, "SERVER_ERROR"),
    "503": Said(503),
    "429": Said(429),
    "large": Said(body=b" " * 2_000_000),
}


class TestFailures:
    @pytest.mark.parametrize("said", WRONG.values(), ids=WRONG.keys())
    def test_leave_the_ids_and_are_said_once(
        self, said: Said, caplog: pytest.LogCaptureFixture
    ) -> None:
        with service(lambda _: said) as running:
            assert ask(running.url, *map(str, range(100))) == {}
            assert len(running.asked) <= 3 * (16 + 5)
        assert len(caplog.messages) == 1
        assert "ids stand for names of assessments: the content service answers" in caplog.text

    def test_a_redirect_is_not_followed(self, caplog: pytest.LogCaptureFixture) -> None:
        with (
            service(lambda _: content("never")) as elsewhere,
            service(lambda _: Said(302, location=f"{elsewhere.url}{READ}do_1")) as running,
        ):
            assert ask(running.url, "do_1") == {}
            assert elsewhere.asked == []
        assert "answers 302" in caplog.text

    def test_a_service_that_is_away_is_given_up(self, caplog: pytest.LogCaptureFixture) -> None:
        with service(lambda _: content("never")) as running:
            url = running.url
        assert ask(url, *map(str, range(1_000))) == {}
        assert [one.partition("(")[0] for one in caplog.messages] == [
            "ids stand for names of assessments: the content service is away "
        ]

    def test_a_slow_service_is_given_up(self, caplog: pytest.LogCaptureFixture) -> None:
        with service(lambda _: Said(wait_s=0.5)) as running:
            assert ask(running.url, *map(str, range(100)), name_s=0.1) == {}
            assert len(running.asked) <= 21
        assert caplog.messages == [
            "ids stand for names of assessments: the content service did not answer in 0.1 s"
        ]

    def test_that_pass_are_tried_again(self, caplog: pytest.LogCaptureFixture) -> None:
        answers = [Said(503), Said(429), content("here")]
        with service(lambda _: answers.pop(0)) as running:
            assert ask(running.url, "a") == {"a": "here"}
        assert caplog.messages == []

    def test_of_one_do_not_take_the_names_of_the_others(self) -> None:
        def say(one: str) -> Said:
            return refusal(500) if int(one) % 4 == 0 else content(one)

        with service(say) as running:
            found = ask(running.url, *map(str, range(200)), at_once=1)
        assert len(found) == 150


class TestInAServer:
    """What a page has: many callers at once, and nobody who waits long."""

    def test_callers_at_once_ask_once_and_what_was_heard_is_used_for_a_time(self) -> None:
        now = [0.0]
        with service(lambda one: content(f"{one}{len(running.asked)}")) as running:

            async def go() -> None:
                names = ContentNames(ContentService.for_server(running.url), clock=lambda: now[0])
                found = await asyncio.gather(*(names.names_of(["a"]) for _ in range(10)))
                assert {one.name("a") for one in found} == {"a1"}
                now[0] = 599
                assert (await names.names_of(["a"])).name("a") == "a1"
                now[0] = 601
                assert (await names.names_of(["a"])).name("a") == "a2"
                await names.close()

            asyncio.run(go())
            assert len(running.asked) == 2

    def test_nobody_waits_for_what_comes_late_and_the_next_has_it(self) -> None:
        said = threading.Event()

        def say(_: str) -> Said:
            said.wait(10)
            return content("late")

        with service(say) as running:

            async def go() -> None:
                quick = replace(ContentService.for_server(running.url), wait_s=0.05)
                names = ContentNames(quick)
                assert (await names.names_of(["a"])).by_id == {}
                said.set()
                for _ in range(100):
                    if (await names.names_of(["a"])).name("a") == "late":
                        break
                else:
                    pytest.fail("it never came")
                await names.close()

            asyncio.run(go())
            assert len(running.asked) == 1

    def test_a_name_stays_while_the_service_is_away_and_is_renewed_after(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        now, answer = [0.0], [content("old")]
        with service(lambda _: answer[0]) as running:

            async def go() -> None:
                names = ContentNames(ContentService.for_server(running.url), clock=lambda: now[0])

                async def name() -> str | None:
                    return (await names.names_of(["a"])).name("a")

                assert await name() == "old"
                now[0], answer[0] = 700, refusal(500)
                for _ in range(20):
                    assert await name() == "old"
                assert len(running.asked) == 1 + 5
                assert len(caplog.messages) == 1
                now[0], answer[0] = 731, content("new")
                assert await name() == "new"
                await names.close()

            asyncio.run(go())

    def test_a_page_has_its_names(self, tmp_path: Path) -> None:
        """And no name of the service is markup; it is never shown a token."""
        known = {"quiz-a": "Light <b>and</b> shadow", "quiz-b": "Colours"}

        def say(one: str) -> Said:
            return content(known[one]) if one in known else refusal(404)

        world = make_world(tmp_path)
        with (
            service(say) as running,
            api(world.settings(content_service=running.url)) as opened,
        ):
            said = opened.request("GET", PAGE, headers={"authorization": "Bearer abc"}).text
        assert "Light &lt;b&gt;and&lt;/b&gt; shadow" in said
        assert "Colours" in said
        assert running.asked
        assert not any("abc" in str(headers) for _, headers in running.asked)

    def test_closes_while_it_asks(self) -> None:
        said = threading.Event()

        def say(_: str) -> Said:
            said.wait(10)
            return content("never")

        with service(say) as running:

            async def go() -> None:
                quick = replace(ContentService.for_server(running.url), wait_s=0.05)
                names = ContentNames(quick)
                await names.names_of(["a", "b", "c"])
                await names.close()

            asyncio.run(go())
            said.set()
