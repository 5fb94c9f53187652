"""`left-out`: ridge regression on all other pairs does not predict the caption from the image; no model."""

from typing import ClassVar

import numpy as np
from jaxtyping import Float64

from clipmem.curation.detectors.base import DETECTORS, Detector, Need
from clipmem.curation.evidence import evidence_of
from clipmem.models.signals import Signals


@DETECTORS.register("left-out")
class LeftOut(Detector):
    """-cos(P_i, t_i): P predicts the caption from the image by kernel ridge regression (RBF) without i."""

    summary = "Ridge regression on all other pairs does not predict the caption from the image; no model"
    needs: ClassVar[frozenset[Need]] = frozenset({"images"})
    weight = 1.0

    def score(self, signals: Signals) -> Float64[np.ndarray, " n"]:
        """Score every pair."""
        return -evidence_of(signals).own.by_ridge
