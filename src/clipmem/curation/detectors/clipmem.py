"""`clipmem`: CLIPMem, or its estimate, of a finished study."""

from typing import ClassVar

import numpy as np
from jaxtyping import Float64

from clipmem.curation.detectors.base import DETECTORS, Detector, Need
from clipmem.models.signals import Signals


@DETECTORS.register("clipmem")
class Memorized(Detector):
    """CLIPMem of a finished study: what only seeing the pair taught the model."""

    summary = "CLIPMem, or its estimate, of a finished study"
    needs: ClassVar[frozenset[Need]] = frozenset({"scores"})
    columns = ("clipmem",)

    def score(self, signals: Signals) -> Float64[np.ndarray, " n"]:
        """Return NaN for pairs that the study did not score."""
        return signals.scores["clipmem"]
