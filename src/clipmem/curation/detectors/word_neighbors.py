"""`word-neighbors`: images with similar captions look unlike the pair's own; no model."""

from clipmem.curation.detectors.base import DETECTORS, Detector, Scores, Signals
from clipmem.curation.evidence import evidence_of


@DETECTORS.register("word-neighbors")
class WordNeighbors(Detector):
    """-cos(Q_i, x_i): Q the softmax-weighted mean image of similar captions, x the pair's image."""

    summary = "Images with similar captions look unlike the pair's own; no model"
    needs = frozenset({"images"})
    weight = 1.0

    def score(self, signals: Signals) -> Scores:
        return -evidence_of(signals).own.by_words
