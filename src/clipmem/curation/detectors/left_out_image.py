"""`left-out-image`: ridge regression on all other pairs does not predict the image from the caption; no model."""

from clipmem.curation.detectors.base import DETECTORS, Detector, Scores, Signals
from clipmem.curation.evidence import evidence_of


@DETECTORS.register("left-out-image")
class LeftOutImage(Detector):
    """-cos(P_i, x_i): P predicts the image from the caption by kernel ridge regression (RBF) without i."""

    summary = "Ridge regression on all other pairs does not predict the image from the caption; no model"
    needs = frozenset({"images"})

    def score(self, signals: Signals) -> Scores:
        return -evidence_of(signals).own.by_ridge_image
