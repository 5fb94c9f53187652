"""The pair score `wordy`: captions of many words."""

import numpy as np

from clipmem.scoring.pair_scores.base import PairScore


class Wordy(PairScore):
    """The number of words of the first caption."""

    summary = "Captions of many words."
    weight = 0.1

    def score(self, signals):
        return np.array([len(own[0].split()) for own in signals.captions], dtype=np.float64)
