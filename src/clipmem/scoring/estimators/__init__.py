"""Estimators of CLIPMem without twins, one file each; importing this package registers them."""

from clipmem.scoring.estimators import (
    closed_form,
    closed_form_image,
    closed_form_rbf,
    distilled,
    lemon,
    raw,
    similarity,
    tracin,
    trajectory,
)
from clipmem.scoring.estimators.base import ESTIMATORS, Estimated, Estimator, Need

__all__ = ["ESTIMATORS", "Estimated", "Estimator", "Need"]
__all__ += ["closed_form", "closed_form_image", "closed_form_rbf", "distilled", "lemon", "raw", "similarity"]
__all__ += ["tracin", "trajectory"]
