"""One tiny study, made once for all end-to-end tests."""

import pytest

import clipmem
from clipmem.testing.tiny import tiny_recipe


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """A finished tiny study (two seeds); read it, never change it."""
    return clipmem.run(tiny_recipe(), tmp_path_factory.mktemp("study") / "run")
