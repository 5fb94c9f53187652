"""The scores and their statistics as pure functions, without files or state: `clipmem.functional.*`.

Two kinds. Scores (`normalize`, `pair_means`, `alignment_parts`, `alignment`, `clipmem`, `range_normalise`)
take torch tensors on any device that has float64. Statistics take numpy arrays of the scores.

Dtypes: any floating dtype goes in; all arithmetic is float64; what comes out is float64, except that
    `normalize` gives back the dtype
it got. What is undefined is None as a single number and NaN in an array; the docstrings say when. Wrong input
raises `InputError`.
"""

from clipmem.functional.alignment import (
    AlignmentParts,
    BankMeans,
    alignment,
    alignment_parts,
    alignment_parts_against,
)
from clipmem.functional.cmc import (
    cmc,
    cmc_modalities,
)
from clipmem.functional.confidence import (
    class_correct,
    class_probability,
    label_memorization,
)
from clipmem.functional.dejavu import (
    DejaVu,
    TopGaps,
    dejavu,
    predict_objects,
    recall_area,
)
from clipmem.functional.dejavu_intervals import (
    DejaVuIntervals,
    TopIntervals,
    dejavu_intervals,
)
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
from clipmem.functional.layermem import (
    LayerMem,
    layer_distances,
    layermem,
)
from clipmem.functional.measures import (
    Measure,
    get_measure,
)
from clipmem.functional.memorization import clipmem, range_normalise
from clipmem.functional.multiple import (
    benjamini_hochberg,
    holm,
)
from clipmem.functional.nearest import (
    Neighbours,
    nearest,
)
from clipmem.functional.paired import (
    PairedTest,
    paired_test,
)
from clipmem.functional.quantile_sketch import (
    LogHistogram,
)
from clipmem.functional.ranking import (
    Correlation,
    RocCurve,
    auroc,
    precision_at_n,
    roc_curve,
    spearman,
    top_overlap,
)
from clipmem.functional.resampling import (
    BootstrapInterval,
    InOutMeans,
    ModelInterval,
    bootstrap_models,
    bootstrap_models_mean,
    in_out_means,
    jackknife_models,
)
from clipmem.functional.similarity import normalize, pair_means
from clipmem.functional.sslmem import (
    sslmem,
    text_view_distance,
    view_distance,
)
from clipmem.functional.unitmem import (
    ClassMemState,
    UnitMem,
    UnitMemState,
    nonnegative,
    unitmem,
)
from clipmem.functional.verdict import (
    Claim,
    all_hold,
    verdict,
)

__all__ = [
    "AlignmentParts",
    "BankMeans",
    "BootstrapInterval",
    "Claim",
    "ClassMemState",
    "Correlation",
    "DejaVu",
    "DejaVuIntervals",
    "GroupComparison",
    "InOutMeans",
    "Interval",
    "LayerMem",
    "LogHistogram",
    "MannWhitney",
    "Measure",
    "ModelInterval",
    "Neighbours",
    "NoiseFloor",
    "PairedTest",
    "RocCurve",
    "SeedInterval",
    "TopGaps",
    "TopIntervals",
    "UnitMem",
    "UnitMemState",
    "Welch",
    "alignment",
    "alignment_parts",
    "alignment_parts_against",
    "all_hold",
    "auroc",
    "benjamini_hochberg",
    "bootstrap_mean",
    "bootstrap_models",
    "bootstrap_models_mean",
    "class_correct",
    "class_probability",
    "clipmem",
    "cmc",
    "cmc_modalities",
    "compare_groups",
    "dejavu",
    "dejavu_intervals",
    "get_measure",
    "hedges_g",
    "holm",
    "in_out_means",
    "jackknife_models",
    "label_memorization",
    "layer_distances",
    "layermem",
    "mann_whitney",
    "nearest",
    "noise_floor",
    "nonnegative",
    "normalize",
    "pair_means",
    "paired_test",
    "precision_at_n",
    "predict_objects",
    "range_normalise",
    "recall_area",
    "roc_curve",
    "seed_interval",
    "spearman",
    "sslmem",
    "superiority",
    "text_view_distance",
    "top_overlap",
    "unitmem",
    "verdict",
    "view_distance",
    "welch",
]
