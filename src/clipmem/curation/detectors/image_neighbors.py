"""`image-neighbors`: captions of images that look alike disagree with the pair's own; no model."""

from clipmem.curation.detectors.base import DETECTORS, Detector, Scores, Signals
from clipmem.curation.evidence import evidence_of


@DETECTORS.register("image-neighbors")
class ImageNeighbors(Detector):
    """-cos(P_i, t_i): P the softmax-weighted mean caption of similar images, t the pair's caption."""

    summary = "Captions of images that look alike disagree with the pair's own; no model"
    needs = frozenset({"images"})
    weight = 1.0

    def score(self, signals: Signals) -> Scores:
        return -evidence_of(signals).own.by_images
