"""Scores and their statistics as pure functions.

Scores take torch tensors on any device with float64; statistics take numpy arrays of scores. Lists and arrays of the
other library are converted. Any floating dtype is accepted; arithmetic and results are float64, except that `normalize`
keeps the dtype of its input. An undefined number is None, or NaN in an array; the docstrings say when. Invalid input
raises `InputError`.
"""

import inspect

from clipmem.functional.alignment import AlignmentParts, BankMeans, alignment, alignment_parts, alignment_parts_against
from clipmem.functional.centering import NoiseFloor, Shift, centered_mean, control_shift, noise_floor
from clipmem.functional.checks import takes_sequences
from clipmem.functional.comparisons import (
    GroupComparison,
    PairedTest,
    Welch,
    compare_groups,
    holm,
    paired_test,
    superiority,
    welch,
)
from clipmem.functional.confidence import class_probability
from clipmem.functional.dejavu import (
    DejaVu,
    DejaVuIntervals,
    TopGaps,
    TopIntervals,
    dejavu,
    dejavu_intervals,
    predict_objects,
)
from clipmem.functional.intervals import (
    Interval,
    SeedInterval,
    SeedNoise,
    crossed_interval,
    crossed_mean,
    half_difference,
    seed_interval,
    seed_noise,
)
from clipmem.functional.memorization import clipmem, range_normalize
from clipmem.functional.nearest import Neighbors, nearest
from clipmem.functional.quantile_sketch import LogHistogram
from clipmem.functional.ranking import Correlation, RocCurve, auroc, precision_at_n, roc_curve, spearman, top_overlap
from clipmem.functional.resampling import InOutMeans, ModelInterval, in_out_means, jackknife_models
from clipmem.functional.similarity import normalize, pair_means
from clipmem.functional.sslmem import text_view_distance, view_distance
from clipmem.functional.unitmem import ClassMemState, UnitMem, UnitMemState, nonnegative, unitmem
from clipmem.functional.verdict import Claim, verdict

__all__ = [
    "AlignmentParts",
    "BankMeans",
    "Claim",
    "ClassMemState",
    "Correlation",
    "DejaVu",
    "DejaVuIntervals",
    "GroupComparison",
    "InOutMeans",
    "Interval",
    "LogHistogram",
    "ModelInterval",
    "Neighbors",
    "NoiseFloor",
    "PairedTest",
    "RocCurve",
    "SeedInterval",
    "SeedNoise",
    "Shift",
    "TopGaps",
    "TopIntervals",
    "UnitMem",
    "UnitMemState",
    "Welch",
    "alignment",
    "alignment_parts",
    "alignment_parts_against",
    "auroc",
    "centered_mean",
    "class_probability",
    "clipmem",
    "compare_groups",
    "control_shift",
    "crossed_interval",
    "crossed_mean",
    "dejavu",
    "dejavu_intervals",
    "half_difference",
    "holm",
    "in_out_means",
    "jackknife_models",
    "nearest",
    "noise_floor",
    "nonnegative",
    "normalize",
    "pair_means",
    "paired_test",
    "precision_at_n",
    "predict_objects",
    "range_normalize",
    "roc_curve",
    "seed_interval",
    "seed_noise",
    "spearman",
    "superiority",
    "text_view_distance",
    "top_overlap",
    "unitmem",
    "verdict",
    "view_distance",
    "welch",
]

for _name in __all__:
    if inspect.isfunction(globals()[_name]):
        globals()[_name] = takes_sequences(globals()[_name])
