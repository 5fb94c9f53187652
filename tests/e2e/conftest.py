"""One tiny study, made once for all end-to-end tests; no training processes from before."""

import pytest

import clipmem
from clipmem.study import pool
from tests.tiny import tiny_recipe


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """A finished tiny study (two seeds); read it, never change it."""
    return clipmem.run(tiny_recipe(), tmp_path_factory.mktemp("study") / "run")


@pytest.fixture
def fresh(monkeypatch):
    """As if no process were kept yet: those of this test see its environment."""
    monkeypatch.setattr(pool, "_reusable", {})
    monkeypatch.setattr(pool, "_reusing", 0)
    yield
    pool._end()
