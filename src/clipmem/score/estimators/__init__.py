"""Estimators of CLIPMem without twins, one file each."""

from clipmem.score.estimators import raw, trajectory
from clipmem.score.estimators.base import ESTIMATORS, Estimated, Estimator, Need

__all__ = ["ESTIMATORS", "Estimated", "Estimator", "Need", "raw", "trajectory"]
