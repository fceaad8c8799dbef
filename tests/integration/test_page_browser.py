"""The page in a real browser: what it says, sorts, finds and saves, and whom it keeps out."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from group_scores.api.page import COOKIE
from group_scores.api.settings import SAMPLE_PAGE
from group_scores.stores import Selection, StoreConfig, open_store
from tests.api_client import token, write_jwks
from tests.browser.screenshot import PATH, SIZE, take
from tests.browser.watched import Watched, chromium, tab
from tests.command_line import succeed
from tests.integration.test_api_process import SAMPLE_COURSE, Served, served
from tests.page_world import PAGE, make_world

README = (Path(__file__).parents[2] / "README.md").read_text()
PHONE = {"width": 360, "height": 740}


@pytest.fixture(scope="module")
def opened() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """What `run` and `serve` give without options."""
    folder = tmp_path_factory.mktemp("samples")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        succeed("run", "--summary", "json")
    with served(folder) as server:
        yield server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("world")
    world = make_world(folder)
    jwks = write_jwks(folder / "jwks.json")
    with served(folder, "--store", world.store, "--groups", world.groups, "--jwks", jwks) as it:
        yield it


def log_in(watched: Watched, url: str, user: str = "u1") -> None:
    watched.page.context.add_cookies([{"name": COOKIE, "value": token(user), "url": url}])


@pytest.fixture
def watched(opened: Browser, server: Served) -> Iterator[Watched]:
    """The page of the drawn-up group, open for one of its members."""
    with tab(opened, locale="en-GB") as made:
        log_in(made, server.url)
        made.page.goto(server.url + PAGE)
        yield made
        made.check(server.url)


def cells(page: Page, member: str) -> list[str]:
    """The texts of a member's row, white space made one."""
    row = page.locator("#scores tbody tr", has=page.locator(f"bdi.name:text-is('{member}')"))
    return [" ".join(text.split()) for text in row.locator("td").all_inner_texts()]


def order(page: Page) -> list[str]:
    """The names of the rows that are shown, from the top."""
    return page.locator("#scores tbody tr:visible bdi.name").all_inner_texts()


def test_the_numbers_are_the_stores(opened: Browser, samples: Served) -> None:
    store = open_store(StoreConfig(f"sqlite:{samples.folder / 'group-scores.db'}"))
    rows = list(store.scan("aggregates", Selection(SAMPLE_COURSE)))
    store.close()
    wanted: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for row in rows:
        values: Any = row["aggregates"]
        for key, score in values.items():
            if key.startswith("score:"):
                content = key.removeprefix("score:")
                pair = (score, values[f"max_score:{content}"])
                user = wanted.setdefault(str(row["user_id"]), {})
                user.setdefault(content, []).append(pair)
    with tab(opened, locale="en-GB") as watched:
        page = watched.page
        page.goto(samples.url + SAMPLE_PAGE)
        contents = page.locator("#scores thead small").all_inner_texts()
        assert len(contents) == 3
        shown: dict[str, dict[str, list[tuple[float, float]]]] = {}
        for row in page.locator("#scores tbody tr").all():
            ids = row.locator("th small.id, th bdi.name").all_inner_texts()
            user = shown.setdefault(ids[-1], {})
            for content, cell in zip(contents, row.locator("td").all(), strict=False):
                for text in cell.locator("b").all_inner_texts():
                    score, of, most = text.split()
                    assert of == "of"
                    user.setdefault(content, []).append((float(score), float(most)))
        watched.check(samples.url)
    not_enrolled = "3d1f5f0c-7a1e-4a58-9d0a-5a3c1b2e9f10"
    inactive = "d272ad83-0459-b5a6-8a67-b574aa600612"
    assert shown.pop(not_enrolled) == {}
    assert inactive in wanted
    assert inactive not in shown
    assert shown == {user: one for user, one in wanted.items() if user != inactive}


def test_the_readmes_picture_is_of_this_page(
    opened: Browser, samples: Served, tmp_path: Path
) -> None:
    take(opened, samples.url + SAMPLE_PAGE, tmp_path / "page.png")
    for path in (tmp_path / "page.png", PATH):
        head = path.read_bytes()[:24]
        assert head[:8] == b"\x89PNG\r\n\x1a\n"
        size = int.from_bytes(head[16:20], "big"), int.from_bytes(head[20:24], "big")
        assert size == (SIZE["width"], SIZE["height"])
    assert f"(docs/{PATH.name})" in README


class TestShows:
    def test_each_member_once_with_what_is_known(self, watched: Watched) -> None:
        page = watched.page
        assert order(page) == ["=1+1", "Asha", "Bilal", "Esha", MALLORY, "u3"]
        evil, quiz_a, quiz_b, total, attempts, progress, active = cells(page, "Asha")
        assert evil == "Batch 2: not attempted Batch 3: not attempted"
        assert quiz_a == "Batch 2: 8 of 10 80 % Batch 3: 5 of 10 50 %"
        assert quiz_b == "Batch 2: not attempted Batch 3: 3 of 4 75 %"
        assert total == "Batch 2: 8 of 10 80 % Batch 3: 8 of 14 58 %"
        assert (attempts, active) == ("4", "2021-04-14 08:54")
        assert progress == "Batch 2: 1 of 3 assessments Batch 3: 2 of 3 assessments"
        assert cells(page, "Bilal") == [
            "not attempted",
            "0 of 10 0 %",
            "not attempted",
            "0 of 10 0 %",
            "1",
            "3 contents completed 1 of 3 assessments",
            "2021-04-14 08:54",
        ]

    def test_what_is_not_known_as_that_and_never_as_0(self, watched: Watched) -> None:
        page = watched.page
        assert cells(page, "u3") == ["not enrolled"] * 7
        assert cells(page, "=1+1")[2:5] == ["3, maximum unknown", "unknown", "unknown"]
        assert cells(page, MALLORY)[:4] == ["unknown", "not attempted", "not attempted", "unknown"]
        assert cells(page, "Esha")[:5] == ["not attempted"] * 5
        assert cells(page, "Esha")[6] == "unknown"

    def test_averages_over_those_who_have_attempted(self, watched: Watched) -> None:
        foot = watched.page.locator("#scores tfoot td").all_inner_texts()
        said = [" ".join(text.split()) for text in foot]
        assert said == [
            "unknown 1 of 6 attempted, 1 without a known percentage",
            "40 % 2 of 6 attempted",
            "75 % 2 of 6 attempted, 1 without a known percentage",
            *[""] * 4,
        ]
        spread = watched.page.get_by_role("img", name="Members by percent of the maximum")
        labels = [one.get_attribute("aria-label") or "" for one in spread.all()]
        assert labels[0].endswith("0-9 %: 1, 80-89 %: 1")

    def test_a_members_attempts_over_time_in_place(self, watched: Watched) -> None:
        page = watched.page
        page.get_by_role("link", name="Attempts of Asha: 4").click()
        dialog = page.get_by_role("dialog", name="Attempts of Asha")
        expect(dialog).to_be_visible()
        times = dialog.locator("time").all_inner_texts()
        assert times == ["2021-04-14 08:54:39", "2021-04-14 08:55:39"]
        chart = dialog.get_by_role("img").get_attribute("aria-label") or ""
        assert chart.endswith("25 %, 80 %")
        assert watched.violations() == []
        dialog.get_by_role("button", name="Close").click()
        expect(dialog).to_be_hidden()


MALLORY = 'Mallory<script>alert("x")</script>'


class TestWorks:
    def test_sorts_with_the_unknown_last_either_way(self, watched: Watched) -> None:
        page = watched.page
        head = page.locator("#scores thead th", has_text="quiz-a")
        head.get_by_role("button").click()
        assert head.get_attribute("aria-sort") == "ascending"
        assert order(page)[:2] == ["Bilal", "Asha"]
        head.get_by_role("button").click()
        assert head.get_attribute("aria-sort") == "descending"
        assert order(page)[:2] == ["Asha", "Bilal"]
        assert page.locator("[aria-sort]").count() == 1
        page.get_by_role("button", name="Member").click()
        assert order(page)[1:4] == ["Asha", "Bilal", "Esha"]

    def test_finds_members_and_says_how_many(self, watched: Watched) -> None:
        page = watched.page
        status = page.get_by_role("status")
        assert status.inner_text() == "6 of 6 members are shown"
        page.get_by_label("Search members").fill("ÁSHA")
        assert order(page) == ["Asha"]
        assert status.inner_text() == "1 of 6 members are shown"
        page.get_by_label("Search members").fill("not enrolled")
        assert order(page) == ["u3"]
        page.get_by_label("Search members").fill("")
        assert len(order(page)) == 6

    def test_saves_as_csv(self, watched: Watched) -> None:
        with watched.page.expect_download() as waiting:
            watched.page.get_by_role("link", name="Download as CSV").click()
        assert waiting.value.suggested_filename == "scores-do_1.csv"
        with open(waiting.value.path(), encoding="utf-8-sig", newline="") as file:
            lines = list(csv.DictReader(file))
        asha = [line for line in lines if line["user_id"] == "u1"]
        assert [(one["batch_id"], one["score:quiz-a"]) for one in asha] == [
            ("b1", "8"),
            ("b2", "5"),
        ]
        (formula,) = [line for line in lines if line["user_id"] == "u4"]
        assert formula["name"] == "'=1+1"
        (absent,) = [line for line in lines if line["user_id"] == "u3"]
        assert (absent["enrolled"], absent["score:quiz-a"]) == ("no", "")
        # The browser counts what becomes a download as a request that was broken off.
        watched.complaints = [one for one in watched.complaints if "format=csv" not in one]

    def test_all_by_keyboard(self, watched: Watched) -> None:
        page = watched.page
        page.keyboard.press("Tab")
        page.keyboard.type("asha")
        assert order(page) == ["Asha"]
        page.keyboard.press("Tab")
        assert focused(page) == "Download as CSV"
        page.keyboard.press("Tab")  # what scrolls, so that the arrow keys scroll it
        assert page.evaluate("document.activeElement.getAttribute('role')") == "region"
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        member = page.locator("#scores thead th").first
        assert member.get_attribute("aria-sort") == "descending"
        for _ in range(8):
            page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.className") == "attempts"
        page.keyboard.press("Enter")
        dialog = page.get_by_role("dialog")
        expect(dialog).to_be_visible()
        assert focused(page) == "Close"
        page.keyboard.press("Escape")
        expect(dialog).to_be_hidden()
        assert page.evaluate("document.activeElement.className") == "attempts"


def focused(page: Page) -> str:
    """The text of what has the focus."""
    return str(page.evaluate("document.activeElement.innerText"))


class TestEverywhere:
    @pytest.mark.parametrize(
        ("query", "options"),
        [
            ("", {}),
            ("", {"viewport": PHONE, "has_touch": True, "color_scheme": "dark"}),
            ("?lang=ar", {}),
            ("?lang=ur", {"viewport": PHONE}),
        ],
        ids=["wide", "dark, on a phone", "from right to left", "so on a phone"],
    )
    def test_is_accessible(
        self, opened: Browser, server: Served, query: str, options: dict[str, Any]
    ) -> None:
        with tab(opened, locale="en-GB", **options) as watched:
            log_in(watched, server.url)
            for path in (PAGE, f"{PAGE}/members/u1"):
                watched.page.goto(server.url + path + query)
                assert watched.violations() == []
                wide = watched.page.evaluate("document.documentElement.scrollWidth")
                assert wide <= watched.page.evaluate("innerWidth")  # only the table scrolls
            watched.check(server.url)

    def test_goes_from_right_to_left(self, opened: Browser, server: Served) -> None:
        with tab(opened, locale="ar-EG") as watched:
            log_in(watched, server.url)
            page = watched.page
            page.goto(server.url + PAGE)
            html = page.locator("html")
            assert (html.get_attribute("lang"), html.get_attribute("dir")) == ("ar", "rtl")
            first, second = page.locator("#scores thead th").all()[:2]
            left, right = first.bounding_box(), second.bounding_box()
            assert left is not None
            assert right is not None
            assert left["x"] > right["x"]
            page.get_by_role("link", name="English").click()
            assert html.get_attribute("dir") == "ltr"
            assert page.locator("#scores").count() == 1
            watched.check(server.url)

    def test_says_all_of_it_without_a_script(self, opened: Browser, server: Served) -> None:
        with tab(opened, java_script_enabled=False, locale="en-GB") as watched:
            log_in(watched, server.url)
            page = watched.page
            page.goto(server.url + PAGE)
            assert cells(page, "Bilal")[1] == "0 of 10 0 %"
            assert page.get_by_role("searchbox").count() == 0
            page.get_by_role("link", name="Attempts of Asha: 4").click()
            expect(page.get_by_role("heading", level=1)).to_have_text("Attempts of Asha")
            page.get_by_role("link", name="Back to the group").click()
            assert len(order(page)) == 6
            watched.check(server.url)


@pytest.mark.parametrize("user", [None, "u5"])
def test_who_may_not_see_it_is_told_so_in_the_same_style(
    opened: Browser, server: Served, user: str | None
) -> None:
    with tab(opened, locale="en-GB") as watched:
        if user:
            log_in(watched, server.url, user)
        answer = watched.page.goto(server.url + PAGE)
        assert answer is not None
        assert answer.status == (403 if user else 401)
        said = watched.page.get_by_role("heading", level=1).inner_text()
        wanted = "not an active member" if user else "sign in"
        assert wanted in said
        assert "Asha" not in watched.page.content()
        assert watched.violations() == []
        # That the answer is an error is what the browser's console says, and nothing else.
        assert len(watched.complaints) == 1
        assert json.dumps(answer.status) in watched.complaints[0]
