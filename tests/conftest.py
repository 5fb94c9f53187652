"""What all tests share."""

import importlib
import os
import subprocess
import sys

import pytest
from hypothesis import HealthCheck, settings

# read when numpy and torch are first imported, here and in processes that tests start: with a process per core, more
# threads wait for each other and take twice as long
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

# a busy machine may take its time
settings.register_profile("clipmem", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("clipmem")

# what takes long to import: under jaxtyping's hook they would be compiled anew in every process
_LARGE = (
    "torch",
    "open_clip",
    "scipy.stats",
    "sklearn.linear_model",
    "matplotlib.pyplot",
    "polars",
    "pyarrow.parquet",
    "pydantic",
)


def pytest_collectstart():
    """Import large packages before a module of clipmem does, and only where tests are collected."""
    for name in _LARGE:
        importlib.import_module(name)


@pytest.fixture(scope="session", autouse=True)
def _training_processes():
    """Keep training processes from study to study, as `clipmem reproduce` does: starting them takes the most time."""
    from clipmem.study import pool

    with pool.reused():
        yield


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
