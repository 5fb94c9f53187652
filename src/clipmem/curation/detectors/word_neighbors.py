"""`word-neighbors`: images with similar captions look unlike the pair's own; no model."""

from typing import ClassVar

import numpy as np
from jaxtyping import Float64

from clipmem.curation.detectors.base import DETECTORS, Detector, Need
from clipmem.curation.evidence import evidence_of
from clipmem.models.signals import Signals


@DETECTORS.register("word-neighbors")
class WordNeighbors(Detector):
    """-cos(Q_i, x_i): Q the softmax-weighted mean image of similar captions, x the pair's image."""

    summary = "Images with similar captions look unlike the pair's own; no model"
    needs: ClassVar[frozenset[Need]] = frozenset({"images"})
    weight = 1.0

    def score(self, signals: Signals) -> Float64[np.ndarray, " n"]:
        """Score every pair."""
        return -evidence_of(signals).own.by_words
