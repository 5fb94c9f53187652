"""`s-cliploss`: similarity against the similarities to all other captions and images."""

from typing import ClassVar

import numpy as np
from jaxtyping import Float64

from clipmem.curation.detectors.base import DETECTORS, Detector, Need, embeddings_of
from clipmem.models.signals import Signals
from clipmem.stats.similarity import contrast


@DETECTORS.register("s-cliploss")
class ScaledLoss(Detector):
    """Minus s-CLIPLoss (Wang et al., NeurIPS 2024), see `clipmem.stats.similarity`."""

    summary = "s-CLIPLoss (Wang et al., NeurIPS 2024): similarity against that to all other images and captions"
    needs: ClassVar[frozenset[Need]] = frozenset({"embeddings"})
    published = True

    def score(self, signals: Signals) -> Float64[np.ndarray, " n"]:
        """Score every pair."""
        return -contrast(*embeddings_of(signals)).scaled.cpu().numpy()
