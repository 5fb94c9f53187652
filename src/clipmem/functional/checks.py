"""Checks that the statistics share: numbers that are finite, lengths that agree, a confidence that is one."""

from typing import Any

import numpy as np
from jaxtyping import Float64

from clipmem.base.errors import InputError


def as_finite(name: str, values: Any) -> Float64[np.ndarray, "..."]:
    """Return `values` as a float64 array; raise where one is not finite.

    Args:
        name: What to call them in an error.
        values: Numbers, any shape, any numeric dtype.

    Returns:
        The same numbers in float64, same shape.

    Raises:
        InputError: A value is NaN or infinite; the message has the count and the first index.
    """
    array = np.asarray(values, dtype=np.float64)
    wrong = ~np.isfinite(array)
    if wrong.any():
        first = np.argwhere(wrong)[0].tolist()
        raise InputError(
            name,
            got=f"{int(wrong.sum())} of {array.size} values not finite, the first at index {first}",
            expected="finite numbers",
            hint="Leave those pairs out, or look at why they have no score.",
        )
    return array


def check_confidence(confidence: float) -> None:
    """Raise an `InputError` unless 0 < `confidence` < 1."""
    if not 0 < confidence < 1:
        raise InputError("confidence", got=f"{confidence}", expected="a number between 0 and 1", hint="Use 0.95.")


def check_draws(draws: int) -> None:
    """Raise an `InputError` unless there is at least one bootstrap draw."""
    if draws < 1:
        raise InputError("draws", got=f"{draws}", expected="a whole number >= 1", hint="Use 2000.")


def check_same_length(name: str, length: int, other_name: str, other_length: int) -> None:
    """Raise an `InputError` that names both unless the lengths are equal."""
    if length != other_length:
        raise InputError(
            f"{name} and {other_name}",
            got=f"{length} and {other_length} values",
            expected="one value a pair in both",
            hint="Join both on the pairs' uid first.",
        )


def check_not_empty(name: str, values: Float64[np.ndarray, "..."]) -> None:
    """Raise an `InputError` that names the values unless there is at least one."""
    if values.size == 0:
        raise InputError(name, got="no value", expected="at least one", hint="Check which pairs were selected.")
