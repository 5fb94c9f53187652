"""What users read is what is kept: see tests/screens.py for how to renew it."""

import pytest

from tests.screens import SCREENS, make


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return make(tmp_path_factory.mktemp("screens"))


@pytest.mark.parametrize("name", sorted(file.stem for file in SCREENS.glob("*.txt")))
def test_a_page_or_screen_reads_as_it_is_kept(made: dict[str, str], name: str) -> None:
    assert made[name] == (SCREENS / f"{name}.txt").read_text(encoding="utf-8")


def test_every_page_and_screen_is_kept(made: dict[str, str]) -> None:
    assert sorted(made) == sorted(file.stem for file in SCREENS.glob("*.txt"))
