"""`lemon`: LEMoN with its authors' settings for data without labeled errors."""

from typing import ClassVar

import numpy as np
from jaxtyping import Float64

from clipmem.curation.detectors.base import DETECTORS, Detector, Need, embeddings_of
from clipmem.models.signals import Signals
from clipmem.stats.agreement import lemon


@DETECTORS.register("lemon")
class Lemon(Detector):
    """LEMoN (Zhang et al., ICML 2025) by `clipmem.stats.agreement.lemon` with its defaults.

    Its authors tune these on labeled errors where they have some. On CC3M, without any, they use these values. Captions
    swapped for the tuning would not do: a model that trained on the pairs tells a new pair by its low similarity.
    """

    summary = "LEMoN (Zhang et al., ICML 2025): similarity and neighbors under the model, with its settings for CC3M"
    needs: ClassVar[frozenset[Need]] = frozenset({"embeddings"})
    published = True

    def score(self, signals: Signals) -> Float64[np.ndarray, " n"]:
        """Score every pair."""
        return lemon(*embeddings_of(signals)).cpu().numpy()
