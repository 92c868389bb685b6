"""Chromium for the browser tests: found, started, and watched while it shows a page."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip
REQUIRE = "PTBR_SLM_REQUIRE_BROWSER"
"""Environment variable: not empty where a missing browser is a failure (.ci/run), not a reason to skip."""

PHONE = {"width": 390, "height": 844}
DESKTOP = {"width": 1280, "height": 900}


@contextmanager
def chromium() -> Iterator[Any]:
    """A running Chromium (Debian's, Chrome, or the one that `playwright install chromium` brings); skips the
    test where there is none, or fails it, see `REQUIRE`.

    While it is open `asyncio.run` fails in this thread: Playwright's loop counts as running there.
    """
    missing = pytest.fail if os.environ.get(REQUIRE) else pytest.skip
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        missing("falta o playwright: pip install playwright")
    program = next(filter(None, map(shutil.which, NAMES)), None)
    with sync_playwright() as driver:
        if program is None and not Path(driver.chromium.executable_path).exists():
            missing("falta o Chromium: bash scripts/install_chromium.sh")
        browser = driver.chromium.launch(executable_path=program, args=FLAGS)
        yield browser
        browser.close()


@dataclass
class Watch:
    """What the pages of one browser context asked for and complained about."""

    asked: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def follow(self, context: Any) -> None:
        """Note every request, console error, uncaught exception and dialog from now on."""
        context.on("request", lambda request: self.asked.append(request.url))
        context.on("console", lambda message: self._console(message))
        context.on("weberror", lambda error: self.errors.append(str(error.error)))
        context.on("dialog", lambda dialog: (self.errors.append(dialog.message), dialog.dismiss()))

    def _console(self, message: Any) -> None:
        if message.type == "error":
            self.errors.append(message.text)

    def check(self, url: str) -> None:
        """Assert that only `url`'s server was asked and nothing went wrong; then forget what was seen."""
        asked, errors = self.asked[:], self.errors[:]
        self.asked.clear()
        self.errors.clear()
        assert not [address for address in asked if not address.startswith((url, "data:", "blob:"))]
        assert not errors


def slow_network(page: Any, milliseconds: int) -> None:
    """From now on every answer to this page takes so much longer, in both directions together."""
    conditions = {
        "offline": False,
        "latency": milliseconds,
        "downloadThroughput": -1,
        "uploadThroughput": -1,
    }
    session = page.context.new_cdp_session(page)
    session.send("Network.enable")
    session.send("Network.emulateNetworkConditions", conditions)
