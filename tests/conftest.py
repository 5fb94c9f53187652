"""What all tests share."""

import pytest

from clipmem.study import pool


@pytest.fixture(scope="session", autouse=True)
def _training_processes():
    """Keep training processes from study to study, as `clipmem reproduce` does: starting them takes the most time."""
    with pool.reused():
        yield
