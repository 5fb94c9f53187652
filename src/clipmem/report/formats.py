"""How numbers look in a report: one place, so that the page and the terminal show the same.

Scores carry three decimals and a sign, shares one decimal in percent. A number that does not exist is written "n/a",
never 0. Rounding is for reading only: take numbers for further work from `summary.json` and `scores.parquet`.
"""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, TypeGuard

MISSING = "n/a"
Number = float | int
"""A number of a JSON file: 1.0 may have been written as 1."""


def _known(value: Number | None) -> TypeGuard[Number]:
    return value is not None and math.isfinite(value)


def plain(value: Number | None, digits: int = 3) -> str:
    """Write a number with a fixed count of decimals.

    Example:
        >>> plain(0.12345), plain(-1.0, 1), plain(None), plain(-0.0001)
        ('0.123', '-1.0', 'n/a', '0.000')
    """
    if not _known(value):
        return MISSING
    text = f"{value:.{digits}f}"
    return text.removeprefix("-") if float(text) == 0 else text


def signed(value: Number | None, digits: int = 3) -> str:
    """Write a score: always with its sign, except for what rounds to zero.

    Example:
        >>> signed(0.5), signed(-0.25), signed(0.0001)
        ('+0.500', '-0.250', '0.000')
    """
    text = plain(value, digits)
    return text if text == MISSING or text.startswith("-") or float(text) == 0 else f"+{text}"


def interval(entry: Mapping[str, Any], sign: bool = False, digits: int = 3) -> str:
    """Write the interval of a summary entry, from its keys `low` and `high`.

    Example:
        >>> interval({"low": 0.1, "high": 0.25}), interval({"low": None, "high": None})
        ('[0.100, 0.250]', 'no interval')
    """
    low, high = entry.get("low"), entry.get("high")
    if not (_known(low) and _known(high)):
        return "no interval"
    write = signed if sign else plain
    return f"[{write(low, digits)}, {write(high, digits)}]"


def percent(value: Number | None, digits: int = 1) -> str:
    """Write a share in [0, 1] in percent, without the sign.

    Example:
        >>> percent(0.125), percent(None)
        ('12.5', 'n/a')
    """
    return plain(None if value is None else 100 * value, digits)


def percent_interval(entry: Mapping[str, Any]) -> str:
    """Write the interval of a share in [0, 1] in percent.

    Example:
        >>> percent_interval({"low": 0.1, "high": 0.25})
        '[10.0, 25.0]'
    """
    scaled = {key: 100 * entry[key] if _known(entry.get(key)) else None for key in ("low", "high")}
    return interval(scaled, digits=1)


def p_value(value: Number | None) -> str:
    """Write a p-value; below 0.0001 only that it is below.

    Example:
        >>> p_value(0.0312), p_value(1e-20), p_value(None)
        ('0.0312', '< 0.0001', 'n/a')
    """
    if _known(value) and value < 1e-4:
        return "< 0.0001"
    return plain(value, 4)


def level(confidence: Number) -> str:
    """Write a confidence level.

    Example:
        >>> level(0.95), level(0.9958333)
        ('95%', '99.58%')
    """
    return f"{100 * confidence:.4g}%"


def duration(seconds: Number) -> str:
    """Write a time so that it can be read: seconds, minutes or hours.

    Example:
        >>> duration(3.21), duration(75), duration(7384)
        ('3.2 s', '1 min 15 s', '2 h 3 min')
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def in_bytes(number: Number) -> str:
    """Write a number of bytes with the unit that fits.

    Example:
        >>> in_bytes(23_500_000), in_bytes(12), in_bytes(0)
        ('23.5 MB', '12 bytes', '0 bytes')
    """
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if number >= size:
            return f"{number / size:,.1f} {unit}"
    return f"{number:,.0f} bytes"


def amount(value: Number) -> str:
    """Write a time, rate or memory: whole numbers from 100 on.

    Example:
        >>> amount(1234.5), amount(12.34)
        ('1,234', '12.3')
    """
    return f"{value:,.0f}" if value >= 100 else plain(value, 1)


def ranges(numbers: Sequence[int]) -> str:
    """Write whole numbers as ranges.

    Example:
        >>> ranges([1, 9, 10, 11, 12]), ranges([3]), ranges([])
        ('1, 9 to 12', '3', 'none')
    """
    starts = [n for k, n in enumerate(numbers) if k == 0 or numbers[k - 1] != n - 1]
    ends = [a for a, b in pairwise(numbers) if b != a + 1] + list(numbers[-1:])
    return ", ".join(str(a) if a == b else f"{a} to {b}" for a, b in zip(starts, ends, strict=True)) or "none"


def setting(value: object) -> str:
    """Write a recipe value on one line.

    Example:
        >>> setting({"batch_size": 128, "crop_scale": [0.9, 1.0], "lr": 5e-4})
        'batch_size 128, crop_scale [0.9, 1], lr 0.0005'
    """
    if isinstance(value, Mapping):
        parts = ((key, setting(one), isinstance(one, Mapping)) for key, one in value.items())
        return ", ".join(f"{key} ({text})" if nested else f"{key} {text}" for key, text, nested in parts)
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list):
        return "[" + ", ".join(setting(one) for one in value) + "]"
    return str(value)


def count(number: int, thing: str, things: str = "") -> str:
    """Write a number of things.

    Example:
        >>> count(1, "seed"), count(1200, "pass", "passes")
        ('1 seed', '1,200 passes')
    """
    return f"{number:,} {thing if number == 1 else things or thing + 's'}"


FORMATS = (
    *(plain, signed, interval, percent, percent_interval, p_value, level),
    *(duration, in_bytes, amount, ranges, setting, count),
)
