"""Scores and their statistics as pure functions.

Scores take torch tensors on any device with float64; statistics take numpy arrays of scores. Lists and arrays of the
other library are converted. Any floating dtype is accepted; arithmetic and results are float64, except that `normalize`
keeps the dtype of its input. An undefined number is None, or NaN in an array; the docstrings say when. Invalid input
raises `InputError`.
"""

import contextlib
import functools
import importlib
import inspect
from collections.abc import Callable
from typing import Any, get_args

import numpy as np

from clipmem.base.errors import require, shorten

_MODULES = {
    "alignment": "AlignmentParts BankMeans alignment alignment_parts alignment_parts_against",
    "centering": "NoiseFloor Shift centered_mean control_shift noise_floor",
    "comparisons": "Claim GroupComparison PairedTest Welch compare_groups holm paired_test superiority verdict welch",
    "dejavu": "DejaVu DejaVuIntervals Neighbors TopGaps TopIntervals dejavu dejavu_intervals nearest predict_objects",
    "intervals": "Interval SeedInterval SeedNoise crossed_interval crossed_mean half_difference seed_interval "
    "seed_noise",
    "memorization": "class_probability clipmem range_normalize",
    "ranking": "Correlation RocCurve auroc precision_at_n roc_curve spearman top_overlap",
    "resampling": "InOutMeans ModelInterval in_out_means jackknife_models",
    "similarity": "normalize pair_means",
    "sslmem": "text_view_distance view_distance",
    "unitmem": "ClassMemState LogHistogram UnitMem UnitMemState nonnegative unitmem",
}
_HOMES = {name: module for module, names in _MODULES.items() for name in names.split()}

__all__ = sorted(_HOMES)  # noqa: PLE0605  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'clipmem.functional' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"clipmem.stats.{_HOMES[name]}"), name)
    globals()[name] = _takes_sequences(value) if inspect.isfunction(value) else value
    return globals()[name]


def __dir__() -> list[str]:
    return __all__


def _takes_sequences(formula: Callable[..., Any]) -> Callable[..., Any]:
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
    is_tensor = kind.array_type is not np.ndarray
    if is_tensor and isinstance(values, kind.array_type):
        return values
    array, dims = None, kind.dim_str.split()
    with contextlib.suppress(TypeError, ValueError, RuntimeError):  # not numbers, ragged, or on another device
        read = np.asarray(values)
        array = read if str(read.dtype) in kind.dtypes else read.astype(kind.dtypes[-1], casting="same_kind")
    right = array is not None and (array.ndim == len(dims) or bool(set("*.") & set(kind.dim_str)))
    expected = f"{kind.__name__.partition('[')[0].lower()} values of shape ({', '.join(dims)})"
    require(right, name, shorten(values), expected, "Give an array or a list.")
    if not is_tensor:
        return array
    import torch  # here, so that statistics of arrays do without it

    return torch.tensor(array)
