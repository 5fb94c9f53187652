"""Corrections for many tests at once: Holm's against any false finding, Benjamini and Hochberg's against many.

Both give *adjusted* p-values: compare them with the level you want (0.05), as if there were one test. Take the
family from what is shown together (all layers of a curve, all groups of a table), before looking at the results; a
family chosen afterwards corrects nothing. Benjamini-Hochberg holds for independent or positively dependent tests,
Holm for any.

Numpy float64 arrays in and out. A test that has no p-value (NaN) stays NaN and does not count in the family.
"""

from typing import Any

import numpy as np
from jaxtyping import Float, Float64
from scipy import stats

from clipmem.base.errors import InputError


def _family(p: Any) -> Float64[np.ndarray, "test"]:
    values: Any = np.asarray(p, dtype=np.float64)
    outside = (values < 0) | (values > 1)
    if outside.any():
        first = int(np.argmax(outside))
        raise InputError(
            "p-values",
            got=f"{values[first]:.6g} at index {first}",
            expected="numbers from 0 to 1",
            hint="Give the p-values of the tests, not their statistics.",
        )
    return values


def holm(p: Float[np.ndarray, "test"]) -> Float64[np.ndarray, "test"]:
    """Adjust p-values so that the chance of even one false finding stays below the level.

    With p_(1) <= ... <= p_(m): adjusted p_(i) = max_{j <= i} min(1, (m - j + 1) p_(j)) (Holm 1979).

    Args:
        p: p-values in [0, 1], NaN for tests that have none, shape (test,).

    Returns:
        Adjusted p-values in [0, 1], in the order given, NaN where `p` is, shape (test,).

    Raises:
        InputError: A value is outside [0, 1].

    Example:
        >>> holm(np.array([0.01, 0.04, 0.03])).tolist()
        [0.03, 0.06, 0.06]
    """
    values = _family(p)
    adjusted = values.copy()
    known = np.flatnonzero(~np.isnan(values))
    order = known[np.argsort(values[known], kind="stable")]
    factors = np.arange(len(order), 0, -1)
    adjusted[order] = np.maximum.accumulate(np.minimum(values[order] * factors, 1.0))
    return adjusted


def benjamini_hochberg(p: Float[np.ndarray, "test"]) -> Float64[np.ndarray, "test"]:
    """Adjust p-values so that the expected share of false findings among the findings stays below the level.

    With p_(1) <= ... <= p_(m): adjusted p_(i) = min_{j >= i} min(1, m p_(j) / j) (Benjamini & Hochberg 1995).

    Args:
        p: p-values in [0, 1], NaN for tests that have none, shape (test,).

    Returns:
        Adjusted p-values in [0, 1], in the order given, NaN where `p` is, shape (test,).

    Raises:
        InputError: A value is outside [0, 1].

    Example:
        >>> benjamini_hochberg(np.array([0.01, 0.04, 0.03])).tolist()
        [0.03, 0.04, 0.04]
    """
    values = _family(p)
    adjusted = values.copy()
    known = ~np.isnan(values)
    if known.any():
        adjusted[known] = stats.false_discovery_control(values[known], method="bh")
    return adjusted
