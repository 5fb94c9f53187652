"""A headless Chromium for tests of pages: what it asks for outside of this machine is refused and listed."""

import shutil
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine: apt-get install chromium")
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run", "--no-proxy-server")
LOCAL = ("file:", "data:", "blob:", "http://127.0.0.1:")
AXE = Path(__file__).parents[2] / "src/clipmem/report/explorer/app/node_modules/axe-core/axe.min.js"


class Session:
    """A browser, what its pages asked for outside of this machine, and the errors of their scripts."""

    def __init__(self, browser: Any) -> None:
        self.browser, self.outside, self.errors = browser, list[str](), list[str]()
        self.context: Any = None

    def open(self, address: str, **settings: Any) -> Any:
        """Open a page in a context of its own, with an empty storage."""
        self.context = self.browser.new_context(viewport={"width": 1440, "height": 900}, **settings)
        self.context.set_default_timeout(15_000)
        self.context.route(lambda url: not url.startswith(LOCAL), self._refuse)
        return self.more(address)

    def more(self, address: str) -> Any:
        """Open another page in the same context."""
        page = self.context.new_page()
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.goto(address)
        return page

    def _refuse(self, route: Any) -> None:
        self.outside.append(route.request.url)
        route.abort()


def becomes(read: Callable[[], Any], expected: Any, seconds: float = 10) -> None:
    """Wait until `read` returns what is expected: a page draws after a key, not with it."""
    end = time.monotonic() + seconds
    while read() != expected and time.monotonic() < end:
        time.sleep(0.02)
    assert read() == expected


@contextmanager
def started() -> Generator[Session]:
    """Start a browser."""
    playwright = pytest.importorskip("playwright.sync_api", reason="no playwright: pip install -e .[dev]")
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        try:
            yield Session(browser)
        finally:
            browser.close()
