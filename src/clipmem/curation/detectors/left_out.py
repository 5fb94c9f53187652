"""`left-out`: ridge regression on all other pairs does not predict the caption from the image; no model."""

from clipmem.curation.detectors.base import DETECTORS, Detector, Scores, Signals
from clipmem.curation.evidence import evidence_of


@DETECTORS.register("left-out")
class LeftOut(Detector):
    """-cos(P_i, t_i): P predicts the caption from the image by kernel ridge regression (RBF) without i."""

    summary = "Ridge regression on all other pairs does not predict the caption from the image; no model"
    needs = frozenset({"images"})
    weight = 1.0

    def score(self, signals: Signals) -> Scores:
        return -evidence_of(signals).own.by_ridge
