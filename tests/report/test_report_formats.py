"""How numbers are written, and which side of a value an interval lies on."""

from typing import Any

import pytest

from clipmem.analysis.verdicts import higher_of, side_of
from clipmem.report import formats


def test_numbers_that_do_not_exist_are_not_zero() -> None:
    for write in (formats.plain, formats.signed, formats.percent, formats.p_value):
        assert write(None) == "n/a"
        assert write(float("nan")) == "n/a"
    assert formats.interval({"low": float("nan"), "high": 1.0}) == "no interval"
    assert formats.percent_interval({"low": None, "high": None}) == "no interval"
    assert formats.signed(-0.0) == formats.signed(0.0004) == formats.signed(-0.0004) == "0.000"
    assert formats.duration(3599.6) == "1 h 0 min"
    assert formats.ranges([2, 3, 5]) == "2 to 3, 5"


@pytest.mark.parametrize(
    ("low", "high", "side"),
    [
        (0.1, 0.3, "above"),
        (-0.3, -0.1, "below"),
        (0.0, 0.3, "inconclusive"),
        (-0.3, 0.0, "inconclusive"),
        (None, 0.3, "inconclusive"),
        (float("nan"), 0.3, "inconclusive"),
    ],
)
def test_a_side_is_shown_only_where_the_interval_excludes_the_value(low: Any, high: Any, side: str) -> None:
    assert side_of({"low": low, "high": high}) == side
    if low is not None:
        assert side_of({"low": low + 1, "high": high + 1}, of=1) == side


def test_overlapping_intervals_are_not_a_victory() -> None:
    a, b, c = ({"low": low, "high": low + 0.2} for low in (0.1, 0.2, 0.5))
    assert [higher_of(a, b), higher_of(c, a), higher_of(a, c)] == ["inconclusive", "above", "below"]
    assert higher_of(a, {"low": None, "high": None}) == "inconclusive"
