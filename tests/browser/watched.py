"""A browser for a test, whose every request and complaint is kept."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from playwright.sync_api import Browser, ConsoleMessage, Page, Request, sync_playwright

from tests.servers.browser import ARGUMENTS, axe, browser


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    """Start the browser for the length of a `with` block."""
    found = browser()
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(
            executable_path=found.program, args=ARGUMENTS, env=dict(found.environment)
        )
        try:
            yield opened
        finally:
            opened.close()


@dataclass
class Watched:
    """A tab: what it asked for, and what it complained of."""

    page: Page
    asked: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def check(self, origin: str) -> None:
        """Assert that it asked nobody but `origin`, and complained of nothing."""
        assert self.complaints == []
        assert self.asked
        assert [url for url in self.asked if not url.startswith(f"{origin}/")] == []

    def violations(self) -> list[str]:
        """Return what the accessibility checker has against the page as it is now."""
        self.page.evaluate(axe())
        found: dict[str, Any] = self.page.evaluate("axe.run(document, {resultTypes: []})")
        assert found["passes"]
        return [
            f"{one['id']}: {node['html'][:200]} {node['failureSummary']}"
            for one in found["violations"]
            for node in one["nodes"]
        ]


@contextlib.contextmanager
def tab(opened: Browser, **options: Any) -> Iterator[Watched]:
    """Open a tab of its own profile, and check nothing of it."""
    with contextlib.closing(opened.new_context(**options)) as context:
        watched = Watched(context.new_page())

        def asked(request: Request) -> None:
            if not request.url.startswith("data:"):
                watched.asked.append(request.url)

        def said(message: ConsoleMessage) -> None:
            watched.complaints.append(f"{message.type}: {message.text}")

        watched.page.on("request", asked)
        watched.page.on("console", said)
        watched.page.on("pageerror", lambda error: watched.complaints.append(str(error)))
        watched.page.on(
            "requestfailed", lambda request: watched.complaints.append(f"failed: {request.url}")
        )
        yield watched
