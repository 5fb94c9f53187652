"""The pair score `misspelled`: captions with words that codespell's dictionary corrects."""

import re
from importlib.resources import files

import numpy as np

from clipmem.scoring.pair_scores.base import PairScore


class Misspelled(PairScore):
    """The number of misspelled English words of the first caption. Some names count, too."""

    summary = "Captions with misspelled words, by codespell's dictionary."
    weight = 1.5
    kind = "hygiene"

    def score(self, signals):
        lines = (files("codespell_lib") / "data" / "dictionary.txt").read_text(encoding="utf-8").splitlines()
        misspelled = {line.partition("->")[0].lower() for line in lines}
        words = [re.findall(r"[^\W\d_]+", captions[0].lower()) for captions in signals.captions]
        return np.array([sum(word in misspelled for word in row) for row in words], dtype=np.float64)

    def certain(self, signals, score):
        return score > np.median(score)  # more of them than usual
