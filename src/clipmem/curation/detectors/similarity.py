"""`similarity`: the distance of image and caption under the model (CLIPScore)."""

import numpy as np

from clipmem.curation.detectors.base import DETECTORS, Detector, Scores, Signals
from clipmem.stats.similarity import normalize

_BLOCK = 65_536


@DETECTORS.register("similarity")
class Similarity(Detector):
    """1 - the cosine of image and caption, in [0, 2] (CLIPScore, Hessel et al., EMNLP 2021)."""

    summary = "1 - cosine of image and caption under the model (CLIPScore)"
    needs = frozenset({"embeddings"})
    weight = 1.0
    published = True

    def score(self, signals: Signals) -> Scores:
        assert signals.image is not None and signals.text is not None  # noqa: PT018, S101  of `needs`
        found = np.empty(len(signals.image))
        for start in range(0, len(found), _BLOCK):
            rows = slice(start, start + _BLOCK)
            u, v = (normalize(x[rows].double(), name="embeddings") for x in (signals.image, signals.text))
            found[rows] = 1 - (u * v).sum(dim=1).cpu().numpy()
        return found
