"""What all tests share."""

import importlib

import pytest

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
