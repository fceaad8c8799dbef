"""`python -m tests.browser.screenshot [PATH]`: the README's picture of the sample group's page."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import Browser

from group_scores.api.settings import SAMPLE_PAGE
from tests.browser.watched import chromium, tab
from tests.integration.pipeline_runs import PROGRAM
from tests.integration.test_api_process import served

PATH = Path(__file__).parents[2] / "docs" / "page.png"
SIZE = {"width": 1280, "height": 640}


def take(opened: Browser, url: str, path: Path) -> None:
    """Save a picture of the page at `url`, sorted by the total."""
    with tab(opened, viewport=SIZE, color_scheme="light") as watched:
        watched.page.goto(url)
        total = watched.page.get_by_role("button", name="Total")
        total.click()
        total.click()
        total.blur()
        watched.page.screenshot(path=path)


def main() -> None:
    """Compute the samples, serve them, and save the picture."""
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else PATH
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        subprocess.run([PROGRAM, "run"], cwd=folder, check=True, capture_output=True)
        with served(folder) as server, chromium() as opened:
            take(opened, server.url + SAMPLE_PAGE, path)
            server.end()


if __name__ == "__main__":
    main()
