"""Input checks that raise a four-part `InputError`."""

import math
from collections.abc import Iterable
from numbers import Real

from clipmem.base.errors import InputError, shorten, shorten_text
from clipmem.base.suggest import did_you_mean

Number = int | float  # the run-time type checks of the tests do not accept an int for a float


def require(condition: object, what: str, got: str, expected: str, hint: str = "") -> None:
    """Raise an `InputError` unless the condition holds.

    Example:
        >>> require(3 > 0, "[train] epochs", "3", "1 or more", "Set train.epochs.")
    """
    if not condition:
        raise InputError(what, got=got, expected=expected, hint=hint)


def require_one_of(what: str, value: object, choices: Iterable[str], hint: str = "") -> None:
    """Raise an `InputError` unless a value is one of the choices; the default hint suggests similar ones.

    Example:
        >>> require_one_of("--device", "cpu", ("auto", "cpu", "cuda"))
    """
    known = list(choices)
    hint = hint or did_you_mean(str(value), known, otherwise="Use one of these.")
    require(value in known, what, shorten(value), ", ".join(known), hint)


def require_range(
    what: str, value: Number, low: Number | None = None, high: Number | None = None, hint: str = ""
) -> None:
    """Raise an `InputError` unless low <= value <= high; None is no bound. Only finite numbers are in range.

    Example:
        >>> require_range("confidence", 0.95, 0, 1)
    """
    number = isinstance(value, Real) and math.isfinite(value)
    if not number or (low is not None and value < low) or (high is not None and value > high):
        expected = (
            f"{low} to {high}" if None not in (low, high) else f"{low} or more" if high is None else f"at most {high}"
        )
        raise InputError(what, got=shorten(value), expected=expected, hint=hint)


def require_columns(what: str, columns: Iterable[str], needed: Iterable[str], hint: str = "") -> None:
    """Raise an `InputError` unless a table has the needed columns.

    Example:
        >>> require_columns("scores.parquet", ["uid", "clipmem"], ["uid"])
    """
    there = list(columns)
    missing = [name for name in needed if name not in there]
    got, hint = f"the columns {', '.join(map(shorten_text, there[:40])) or 'none'}", hint or "Check the file."
    require(not missing, what, got, f"also {', '.join(missing)}", hint)
