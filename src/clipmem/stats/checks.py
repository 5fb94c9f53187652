"""Checks of the arguments of formulas on arrays, and means of parts of them."""

from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float64, Int

from clipmem.base.errors import InputError, require

Mask = Bool[np.ndarray, " n"]  # of pairs
Codes = Int[np.ndarray, " n"]  # the group or class of each pair, any integers
Groups = Codes | None  # None: each row has its own
BySeed = Float[np.ndarray, "seed n"]  # of each pair under each seed
ByModel = Float[np.ndarray, "model n"]  # the same under each model
Member = Bool[np.ndarray, "model n"]  # whether a model trained on a pair


def as_finite(name: str, values: Any) -> Float64[np.ndarray, "..."]:
    """Return `values` as a float64 array; raise an `InputError` if one is not finite."""
    array = np.asarray(values, dtype=np.float64)
    bad = ~np.isfinite(array)
    if bad.any():
        got = f"{int(bad.sum())} of {array.size} values not finite, the first at index {np.argwhere(bad)[0].tolist()}"
        hint = "Leave out those pairs, or find out why they have no score."
        raise InputError(name, got=got, expected="finite numbers", hint=hint)
    return array


def check_confidence(confidence: float) -> None:
    """Raise an `InputError` unless 0 < `confidence` < 1."""
    require(0 < confidence < 1, "confidence", f"{confidence}", "a number between 0 and 1", "Use 0.95.")


def check_same_length(name: str, length: int, other_name: str, other_length: int) -> None:
    """Raise an `InputError` unless the lengths are equal."""
    got, hint = f"{length} and {other_length} values", "Join both on the pairs' uid first."
    require(length == other_length, f"{name} and {other_name}", got, "one value a pair in both", hint)


def check_not_empty(name: str, values: Float64[np.ndarray, "..."]) -> None:
    """Raise an `InputError` unless there is at least one value."""
    require(values.size > 0, name, "no value", "at least one", "Check which pairs were selected.")


def mean_where(
    values: Float[np.ndarray, "m n"] | Bool[np.ndarray, "m n"], where: Bool[np.ndarray, "m n"]
) -> Float64[np.ndarray, " n"]:
    """Average each column over the rows of a mask; NaN without any."""
    count, total = where.sum(axis=0), np.where(where, values, 0.0).sum(axis=0)
    return np.divide(total, count, out=np.full(len(count), np.nan), where=count > 0)
