"""Checks of the arguments of formulas."""

import contextlib
import functools
import inspect
from collections.abc import Callable
from typing import Any, get_args

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int
from torch import Tensor

from clipmem.base.errors import InputError, shorten
from clipmem.base.require import require

_LONGEST = 1.01  # a mean of unit vectors has length <= 1; the margin is for half precision


def takes_sequences(formula: Callable[..., Any]) -> Callable[..., Any]:
    """Return a formula that takes lists, and arrays of any library, for its arrays, and refuses anything else."""
    signature = inspect.signature(formula)

    @functools.wraps(formula)
    def call(*args: Any, **options: Any) -> Any:
        given = signature.bind(*args, **options)
        for name, value in given.arguments.items():
            kind, default = signature.parameters[name].annotation, signature.parameters[name].default
            for array in [one for one in (kind, *get_args(kind)) if hasattr(one, "dim_str") and value is not default]:
                given.arguments[name] = _as_array(name, value, array)
        return formula(*given.args, **given.kwargs)

    return call


def _as_array(name: str, values: Any, kind: Any) -> Any:
    if isinstance(values, Tensor) and kind.array_type is Tensor:
        return values
    array, dims = None, kind.dim_str.split()
    with contextlib.suppress(TypeError, ValueError, RuntimeError):  # not numbers, ragged, or on another device
        read = np.asarray(values)
        array = read if str(read.dtype) in kind.dtypes else read.astype(kind.dtypes[-1], casting="same_kind")
    right = array is not None and (array.ndim == len(dims) or bool(set("*.") & set(kind.dim_str)))
    expected = f"{kind.__name__.partition('[')[0].lower()} values of shape ({', '.join(dims)})"
    require(right, name, shorten(values), expected, "Give an array or a list.")
    return torch.tensor(array) if kind.array_type is Tensor else array


def as_finite(name: str, values: Any) -> Float64[np.ndarray, "..."]:
    """Return `values` as a float64 array; raise an `InputError` if one is not finite."""
    array = np.asarray(values, dtype=np.float64)
    wrong = ~np.isfinite(array)
    if wrong.any():
        got = (
            f"{int(wrong.sum())} of {array.size} values not finite, the first at index {np.argwhere(wrong)[0].tolist()}"
        )
        hint = "Leave out those pairs, or find out why they have no score."
        raise InputError(name, got=got, expected="finite numbers", hint=hint)
    return array


def check_confidence(confidence: float) -> None:
    """Raise an `InputError` unless 0 < `confidence` < 1."""
    require(0 < confidence < 1, "confidence", f"{confidence}", "a number between 0 and 1", "Use 0.95.")


def check_draws(draws: int) -> None:
    """Raise an `InputError` unless there is at least one bootstrap draw."""
    require(draws >= 1, "draws", f"{draws}", "a whole number >= 1", "Use 2000.")


def check_same_length(name: str, length: int, other_name: str, other_length: int) -> None:
    """Raise an `InputError` unless the lengths are equal."""
    got, hint = f"{length} and {other_length} values", "Join both on the pairs' uid first."
    require(length == other_length, f"{name} and {other_name}", got, "one value a pair in both", hint)


def check_not_empty(name: str, values: Float64[np.ndarray, "..."]) -> None:
    """Raise an `InputError` unless there is at least one value."""
    require(values.size > 0, name, "no value", "at least one", "Check which pairs were selected.")


def check_rows(name: str, wrong: Bool[Tensor, " n"], kind: str, expected: str, hint: str) -> None:
    """Raise an `InputError` with the number of wrong rows and the first of them, if there are any."""
    if bool(wrong.any()):
        got = f"{int(wrong.sum())} of {wrong.numel()} rows {kind}, the first in row {int(torch.nonzero(wrong)[0])}"
        raise InputError(name, got=got, expected=expected, hint=hint)


def check_index(name: str, index: Int[Tensor, " n"], low: int, stop: int, hint: str) -> None:
    """Raise an `InputError` unless low <= index < stop everywhere."""
    outside = (index < low) | (index >= stop)
    if bool(outside.any()):
        row = int(torch.nonzero(outside)[0])
        raise InputError(name, got=f"{int(index[row])} in row {row}", expected=f"{low} to {stop - 1}", hint=hint)


def check_means(name: str, means: Float[Tensor, "..."], shape: tuple[int, ...]) -> None:
    """Raise an `InputError` unless these are means of unit vectors of the given shape."""
    got = f"shape {tuple(means.shape)}"
    require(means.shape == shape, name, got, f"shape {shape}", "Take images, captions, and bank from the same model.")
    # negated, so that NaN is caught too
    wrong = ~(torch.linalg.vector_norm(means.double(), dim=-1) <= _LONGEST)
    hint = "Compute them with clipmem.functional.pair_means."
    check_rows(name, wrong, "not finite or longer than 1", "means of unit vectors", hint)
