"""Scores of captions that say little of their image: no captions, shared by many, or unlike others of the image."""

import re
import unicodedata
from collections import Counter

import numpy as np
from jaxtyping import Bool, Float64

from clipmem.base.hashing import numbered, same_words
from clipmem.models.signals import Signals
from clipmem.scoring.evidence import Evidence
from clipmem.scoring.pair_scores.base import PAIR_SCORES, PairScore, Scores

_FILE = re.compile(
    r"^\W*(?:img|dsc[nf]?|image|photo|screen ?shot|untitled)[\s_-]*\d\d(?:[\W\d_]|\bat\b)*(?:[ap]m)?$|"
    r"^(?=\S*[-_]v?\d+$)(?:\S*[-_])?(?:img|image|photo|scan|thumb|final)[-_]|\.(?:jpe?g|png|gif|webp|svg|bmp|tiff?)\b",
    re.I,
)
_OF_TEXT = re.compile(r"^(?!.*[a-z])(?=.*\d)(?:.*?\b[A-Z]{2,}\b){2}", re.S)  # what a sign or a label says, read by OCR
_ADDRESS = re.compile(r"https?://|www\.|<[a-z/][^>]*>|&[a-z]+;", re.I)
_BOILERPLATE = re.compile(
    r"click (?:here|to)|all rights reserved|(?:copyright|©) ?\d{4}|no caption|not available|lorem ipsum|image result|"
    r"^(?:n/?a|none|null|nan|unknown|untitled|(?:stock )?(?:image|photo|illustration)|pict[a-z]+|caption|alt text|"
    r"(?:getty|view larger|enlarge|full.size|(?:royalty.)?free stock) (?:image|photo)s?|shutterstock|alamy)$",
    re.I,
)
_STOCK = re.compile(r"^(?:stock|royalty.free) [a-z]+ of\b|\b(?:getty images|shutterstock|istock|alamy)\b", re.I)
LONG = 4.0  # times the 95% quantile of the numbers of words
USUAL, OFTEN = 0.98, 1.5  # share of the captions that are used no more often than usual; often: times that number
# a suspect by rule: chosen between the categories' names and the names of the shipped drawings
TIMES, PAIRS, SHARE, ALIKE = 3.0, 10, 0.005, 0.2


@PAIR_SCORES.register("hygiene")
class Hygiene(PairScore):
    """Findings: no word, a file name, an address, boilerplate, text of a sign, too long; half: stock, rare script."""

    summary = "Empty captions, file names, addresses, boilerplate, another script than the rest; captions alone"
    weight = 1.5
    kind = "hygiene"

    def score(self, signals: Signals) -> Scores:
        texts = [captions[0].strip() for captions in signals.captions]
        scripts = [_script(text) for text in texts]
        counts = Counter(script for script in scripts if script)
        usual = {script for script, times in counts.items() if times >= 0.05 * len(texts)}
        length = np.array([len(text.split()) for text in texts])
        long = LONG * max(10.0, float(np.quantile(length, 0.95)))
        findings = [
            (not any(map(str.isalpha, text)))
            + bool(_FILE.search(text))
            + bool(_ADDRESS.search(text))
            + bool(_BOILERPLATE.search(text))
            + bool(_OF_TEXT.search(text))
            # alone these are no rule: such captions can be right
            + 0.5 * bool((script and script not in usual) or _STOCK.search(text))
            for text, script in zip(texts, scripts, strict=True)
        ]
        return np.array(findings, dtype=np.float64) + (length > long)

    def certain(self, signals: Signals, score: Scores) -> Bool[np.ndarray, " n"]:  # noqa: ARG002
        return score > np.median(score) + 0.5  # more findings than usual


def _script(text: str) -> str:
    """Return the most frequent script of a text's letters, by their Unicode names; "" without letters."""
    names = Counter(unicodedata.name(letter, "").partition(" ")[0] for letter in text if letter.isalpha())
    return names.most_common(1)[0][0] if names else ""


@PAIR_SCORES.register("vague")
class Vague(PairScore):
    """log(m / m₀) (1 - c) where m > 1.5 m₀, else 0: of a few names of classes, the most frequent one is not vague.

    m is the number of pairs with the caption, m₀ its 98% quantile over the different captions (at least 2), and c the
    mean cosine between their images, in which 0 is that of images drawn at random. A caption that at least 10 pairs,
    0.5% of all and 3 m₀ share, with c below .2, is suspect whatever the odds.
    """

    summary = "Captions shared by more pairs than usual, whose images differ; no model"
    needs = frozenset({"images"})
    weight = 3.0
    kind = "vague"

    def score(self, signals: Signals) -> Scores:
        times, cosine, usual = signals.once(_shared)
        return np.log(np.maximum(times / usual, 1)) * np.clip(1 - cosine, 0, 1)

    def certain(self, signals: Signals, score: Scores) -> Bool[np.ndarray, " n"]:
        times, cosine, usual = signals.once(_shared)
        return (times >= max(PAIRS, SHARE * len(score), TIMES * usual)) & (cosine < ALIKE)


def _shared(signals: Signals) -> tuple[Float64[np.ndarray, " n"], Float64[np.ndarray, " n"], float]:
    """Return m and c of each pair's caption, 0 unless m > 1.5 m₀, and m₀."""
    image = signals.once(Evidence).image
    caption = numbered("\n".join(map(same_words, texts)) for texts in signals.captions)
    times = np.bincount(caption)
    usual = max(2.0, float(np.quantile(times, USUAL)))
    times = np.where(times > OFTEN * usual, times, 0)
    number = np.where(times > 0, np.cumsum(times > 0) - 1, -1)[caption]  # of the captions used often
    rows = np.flatnonzero(number >= 0)
    m = times[times > 0]
    sums = np.zeros((len(m), image.shape[1]))
    np.add.at(sums, number[rows], image[rows])
    cosine = np.zeros(len(caption))
    cosine[rows] = (((sums * sums).sum(axis=1) - m) / (m * (m - 1)))[number[rows]]
    return times[caption].astype(np.float64), cosine, usual


@PAIR_SCORES.register("duplicates")
class Duplicates(PairScore):
    """Of the other pairs of its group, of one image file, the share whose captions have no word in common with its own.

    Of two such pairs it cannot tell which caption is wrong; of three, the odd one out ranks first.
    """

    summary = "Identical images whose captions share no word; captions and groups alone"
    weight = 0.5
    kind = "duplicate"

    def score(self, signals: Signals) -> Scores:
        scores = np.zeros(len(signals.group))
        order = np.argsort(signals.group, kind="stable")
        ends = np.flatnonzero(np.diff(signals.group[order], prepend=-1, append=-1))
        several = np.flatnonzero(np.diff(ends) > 1)
        for rows in (order[ends[k] : ends[k + 1]] for k in several):
            words = [{word for text in signals.captions[int(row)] for word in text.casefold().split()} for row in rows]
            for k, row in enumerate(rows):
                scores[row] = sum(words[k].isdisjoint(other) for other in words) / (len(rows) - 1)
        return scores
