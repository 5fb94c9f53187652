"""`low-alignment`: low alignment under models that did not train on the pair."""

from typing import ClassVar

import numpy as np
from jaxtyping import Float64

from clipmem.curation.detectors.base import DETECTORS, Detector, Need
from clipmem.models.signals import Signals


@DETECTORS.register("low-alignment")
class LowAlignment(Detector):
    """Minus A under the models of a study that never saw the pair."""

    summary = "Low alignment under models that did not train on the pair"
    needs: ClassVar[frozenset[Need]] = frozenset({"scores"})
    columns = ("g_alignment",)

    def score(self, signals: Signals) -> Float64[np.ndarray, " n"]:
        """Return NaN for pairs that the study did not score."""
        return -signals.scores["g_alignment"]
