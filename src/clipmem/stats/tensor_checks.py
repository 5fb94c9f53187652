"""Checks of the arguments of formulas on tensors."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from clipmem.base.errors import InputError, require

_LONGEST = 1.01  # a mean of unit vectors has length <= 1; the margin is for half precision


def check_rows(name: str, bad: Bool[Tensor, " n"], kind: str, expected: str, hint: str) -> None:
    """Raise an `InputError` with the number of wrong rows and the first of them, if there are any."""
    if bool(bad.any()):
        got = f"{int(bad.sum())} of {bad.numel()} rows {kind}, the first in row {int(torch.nonzero(bad)[0])}"
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
    bad = ~(torch.linalg.vector_norm(means.double(), dim=-1) <= _LONGEST)
    hint = "Compute them with clipmem.functional.pair_means."
    check_rows(name, bad, "not finite or longer than 1", "means of unit vectors", hint)
