"""`vague`: captions that many pairs share though their images have little in common."""

import numpy as np
from jaxtyping import Bool, Float64

from clipmem.base.hashing import numbered, same_words
from clipmem.curation.detectors.base import DETECTORS, Detector, Scores, Signals
from clipmem.curation.evidence import evidence_of

USUAL = 0.98  # share of the captions that are used no more often than usual
# a suspect by rule: chosen between the categories' names and the names of the shipped drawings
TIMES, PAIRS, SHARE, ALIKE = 3.0, 10, 0.005, 0.2


@DETECTORS.register("vague")
class Vague(Detector):
    """log(m / m₀) (1 - c) where positive, else 0.

    m is the number of pairs with the caption, m₀ its 98% quantile over the different captions (at least 2), and c the
    mean cosine between their images, in which 0 is that of images drawn at random. A caption that at least 10 pairs,
    0.5% of all and 3 m₀ share, with c below .2, is suspect whatever the odds.
    """

    summary = "Captions shared by more pairs than usual, whose images differ; no model"
    needs = frozenset({"images"})
    weight = 3.0
    kind = "vague"

    def score(self, signals: Signals) -> Scores:
        times, cosine, usual = _shared(signals)
        return np.log(np.maximum(times / usual, 1)) * np.clip(1 - cosine, 0, 1)

    def certain(self, signals: Signals, score: Scores) -> Bool[np.ndarray, " n"]:
        times, cosine, usual = _shared(signals)
        return (times >= max(PAIRS, SHARE * len(score), TIMES * usual)) & (cosine < ALIKE)


def _shared(signals: Signals) -> tuple[Float64[np.ndarray, " n"], Float64[np.ndarray, " n"], float]:
    """Return m and c of each pair's caption, c only where m > m₀, and m₀."""
    image = evidence_of(signals).image
    caption = numbered("\n".join(map(same_words, own)) for own in signals.captions)
    times = np.bincount(caption)
    usual = max(2.0, float(np.quantile(times, USUAL)))
    number = np.where(times > usual, np.cumsum(times > usual) - 1, -1)[caption]  # of the captions used more often
    rows = np.flatnonzero(number >= 0)
    m = times[times > usual]
    sums = np.zeros((len(m), image.shape[1]))
    np.add.at(sums, number[rows], image[rows])
    cosine = np.zeros(len(caption))
    cosine[rows] = (((sums * sums).sum(axis=1) - m) / (m * (m - 1)))[number[rows]]
    return times[caption].astype(np.float64), cosine, usual
