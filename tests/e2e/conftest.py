"""One tiny study, made once for all end-to-end tests; a small disk; no training processes from before."""

import subprocess
import sys

import pytest

import clipmem
from clipmem.study import pool
from clipmem.testing.tiny import tiny_recipe


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """A finished tiny study (two seeds); read it, never change it."""
    return clipmem.run(tiny_recipe(), tmp_path_factory.mktemp("study") / "run")


@pytest.fixture
def disk(tmp_path):
    """A small file system of our own: mount, and again with other options."""
    place = tmp_path / "disk"
    place.mkdir()

    def mount(options):
        return subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)], capture_output=True, text=True, check=False
        )

    done = mount("size=64k") if sys.platform == "linux" else None
    if done is None or done.returncode:
        pytest.skip("mounting a small file system needs Linux and the rights of root")
    try:
        yield place, lambda options: mount(f"remount,{options}")
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.fixture
def fresh(monkeypatch):
    """As if no process were kept yet: those of this test see its environment."""
    monkeypatch.setattr(pool, "_reusable", {})
    monkeypatch.setattr(pool, "_reusing", 0)
    yield
    pool._end()
