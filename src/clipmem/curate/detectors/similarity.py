"""`similarity`: the distance of image and caption under the model (CLIPScore)."""

from typing import ClassVar

import numpy as np
from jaxtyping import Float64

from clipmem.curate.detectors.base import DETECTORS, Detector, Need, embeddings_of
from clipmem.embed.signals import Signals
from clipmem.functional.similarity import normalize


@DETECTORS.register("similarity")
class Similarity(Detector):
    """1 - the cosine of image and caption, in [0, 2] (CLIPScore, Hessel et al., EMNLP 2021)."""

    summary = "1 - cosine of image and caption under the model (CLIPScore)"
    needs: ClassVar[frozenset[Need]] = frozenset({"embeddings"})
    weight = 1.0
    published = True

    def score(self, signals: Signals) -> Float64[np.ndarray, "n"]:
        """Score every pair."""
        u, v = (normalize(x, name="embeddings") for x in embeddings_of(signals))
        return 1 - (u * v).sum(dim=1).cpu().numpy()
