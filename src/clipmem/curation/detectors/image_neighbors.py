"""`image-neighbors`: captions of images that look alike disagree with the pair's own; no model."""

from typing import ClassVar

import numpy as np
from jaxtyping import Float64

from clipmem.curation.detectors.base import DETECTORS, Detector, Need
from clipmem.curation.evidence import evidence_of
from clipmem.models.signals import Signals


@DETECTORS.register("image-neighbors")
class ImageNeighbors(Detector):
    """-cos(P_i, t_i): P the softmax-weighted mean caption of similar images, t the pair's caption."""

    summary = "Captions of images that look alike disagree with the pair's own; no model"
    needs: ClassVar[frozenset[Need]] = frozenset({"images"})
    weight = 1.0

    def score(self, signals: Signals) -> Float64[np.ndarray, " n"]:
        """Score every pair."""
        return -evidence_of(signals).own.by_images
