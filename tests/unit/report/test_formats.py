"""How numbers are written, and which side of a value an interval lies on."""

from typing import Any

import pytest

from clipmem.report import formats
from clipmem.report.formats import higher_of, side_of


def test_numbers_that_do_not_exist_are_not_zero() -> None:
    for write in (formats.plain, formats.signed, formats.percent, formats.p_value):
        assert write(None) == "n/a"
        assert write(float("nan")) == "n/a"
    assert formats.interval({"low": float("nan"), "high": 1.0}) == "no interval"
    assert formats.percent_interval({"low": None, "high": None}) == "no interval"
    assert formats.signed(-0.0) == formats.signed(1e-9) == formats.signed(-1e-9) == "0.000"
    assert [formats.signed(value) for value in (0.00031, -0.000312, 0.0000312)] == ["+0.00031", "-0.00031", "+3.1e-05"]
    assert [formats.plain(0.0006), formats.plain(0.0004, 1), formats.percent(0.0002)] == ["0.001", "0.0", "0.0"]
    wide, narrow = {"low": -0.0001, "high": 0.2}, {"low": -0.0001, "high": 0.00021}
    assert formats.interval(wide, sign=True) == "[0.000, +0.200]"
    assert formats.interval(narrow, sign=True) == "[-0.0001, +0.00021]"
    assert [formats.signed(0.00031, entry=entry) for entry in (wide, narrow)] == ["0.000", "+0.00031"]
    assert formats.duration(3599.6) == "1 h 0 min"


def test_numbers_are_written_as_a_reader_wants_them() -> None:
    assert [formats.plain(0.12345), formats.plain(-1.0, 1), formats.signed(0.5)] == ["0.123", "-1.0", "+0.500"]
    assert formats.interval({"low": 0.1, "high": 0.25}, sign=True) == "[+0.100, +0.250]"
    assert [formats.percent(0.125), formats.percent_interval({"low": 0.1, "high": 0.25})] == ["12.5", "[10.0, 25.0]"]
    assert [formats.p_value(0.0312), formats.p_value(1e-20)] == ["0.0312", "< 0.0001"]
    assert [formats.level(0.95), formats.level(0.999), formats.level(0.9958333)] == ["95%", "99.9%", "99.58%"]
    assert [formats.duration(t) for t in (3.21, 75, 7384)] == ["3.2 s", "1 min 15 s", "2 h 3 min"]
    assert [formats.in_bytes(n) for n in (23_500_000, 12, 0)] == ["23.5 MB", "12 bytes", "0 bytes"]
    assert [formats.amount(1234.5), formats.amount(12.34)] == ["1,234", "12.3"]
    assert (
        formats.setting({"size": 128, "crop": [0.9, 1.0], "a": {"b": 5e-4}}) == "size 128, crop [0.9, 1], a (b 0.0005)"
    )
    assert [formats.count(1, "seed"), formats.count(1200, "pass", "passes")] == ["1 seed", "1,200 passes"]


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
