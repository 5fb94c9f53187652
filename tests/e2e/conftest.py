"""One tiny study, made once for all end-to-end tests; a browser; no training processes from before."""

from collections.abc import Generator

import pytest

import clipmem
from clipmem.study import pool
from tests.e2e.browser import Session, started
from tests.tiny import tiny_recipe


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """A finished tiny study (two seeds); read it, never change it."""
    return clipmem.run(tiny_recipe(), tmp_path_factory.mktemp("study") / "run")


@pytest.fixture(scope="module")  # not of the session: a second one, of a test that starts its own, needs the first gone
def browser() -> Generator[Session]:
    """A headless Chromium; tests that use it are marked with `needs_browser`."""
    with started() as session:
        yield session


@pytest.fixture
def nothing_leaves(browser: Session) -> Generator[None]:
    """After a test, no page asked for anything outside of this machine, and no script failed."""
    yield
    browser.context.close()
    assert browser.outside == []
    assert browser.errors == []


@pytest.fixture
def fresh(monkeypatch):
    """As if no process were kept yet: those of this test see its environment."""
    monkeypatch.setattr(pool, "_reusable", {})
    monkeypatch.setattr(pool, "_reusing", 0)
    yield
    pool._end()
