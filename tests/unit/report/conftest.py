"""A run folder as a finished study leaves it, small and synthetic, for the tests of the report."""

from collections.abc import Callable

import pytest

from tests.unit.report.run_folder import Built, build_run


@pytest.fixture(scope="session")
def build(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Built]:
    """Build a run folder; the keywords are those of `build_run`."""

    def make(**settings: object) -> Built:
        return build_run(tmp_path_factory.mktemp("run") / "study", **settings)

    return make


@pytest.fixture(scope="session")
def two_seeds(build: Callable[..., Built]) -> Built:
    """Two seeds, swapped pairs. Shared by many tests: read it, do not change it."""
    return build(seeds=(0, 1), planted=8)


@pytest.fixture(scope="session")
def one_seed(build: Callable[..., Built]) -> Built:
    """One seed, nothing planted. Shared by many tests: read it, do not change it."""
    return build(seeds=(3,), planted=0)
