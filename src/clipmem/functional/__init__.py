"""The scores and their statistics as pure functions, without files or state: `clipmem.functional.*`.

Two kinds. Scores (`normalize`, `pair_means`, `alignment_parts`, `alignment`, `clipmem`, `range_normalise`)
take torch tensors on any device that has float64. Statistics take numpy arrays of the scores.

Dtypes: any floating dtype goes in; all arithmetic is float64; what comes out is float64, except that
    `normalize` gives back the dtype
it got. What is undefined is None as a single number and NaN in an array; the docstrings say when. Wrong input
raises `InputError`.
"""

from clipmem.functional.alignment import AlignmentParts, alignment, alignment_parts
from clipmem.functional.hypothesis_tests import (
    GroupComparison,
    MannWhitney,
    Welch,
    compare_groups,
    hedges_g,
    mann_whitney,
    superiority,
    welch,
)
from clipmem.functional.intervals import (
    Interval,
    NoiseFloor,
    SeedInterval,
    bootstrap_mean,
    noise_floor,
    seed_interval,
)
from clipmem.functional.memorization import clipmem, range_normalise
from clipmem.functional.ranking import (
    Correlation,
    RocCurve,
    auroc,
    precision_at_n,
    roc_curve,
    spearman,
    top_overlap,
)
from clipmem.functional.similarity import normalize, pair_means

__all__ = [
    "AlignmentParts",
    "Correlation",
    "GroupComparison",
    "Interval",
    "MannWhitney",
    "NoiseFloor",
    "RocCurve",
    "SeedInterval",
    "Welch",
    "alignment",
    "alignment_parts",
    "auroc",
    "bootstrap_mean",
    "clipmem",
    "compare_groups",
    "hedges_g",
    "mann_whitney",
    "noise_floor",
    "normalize",
    "pair_means",
    "precision_at_n",
    "range_normalise",
    "roc_curve",
    "seed_interval",
    "spearman",
    "superiority",
    "top_overlap",
    "welch",
]
