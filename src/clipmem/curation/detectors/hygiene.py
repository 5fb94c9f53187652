"""`hygiene`: captions that are no captions: empty, file names, addresses, boilerplate, another script than the rest."""

import re
import unicodedata
from collections import Counter

import numpy as np
from jaxtyping import Bool

from clipmem.curation.detectors.base import DETECTORS, Detector, Scores, Signals

_FILE = re.compile(
    r"\b(?:img|dsc[nf]?|image|photo|screenshot|untitled)[\s_-]*\d{2,}\b|\.(?:jpe?g|png|gif|webp|svg|bmp|tiff?)\b", re.I
)
_ADDRESS = re.compile(r"https?://|www\.|<[a-z/][^>]*>|&[a-z]+;", re.I)
_BOILERPLATE = re.compile(
    r"click (?:here|to)|all rights reserved|copyright|stock (?:photo|image|illustration)|no caption|not available|"
    r"lorem ipsum|image result|^(?:n/?a|none|null|nan|unknown|untitled|image|photo|pict[a-z]+|caption)$",
    re.I,
)
LONG = 4.0  # times the 95% quantile of the numbers of words


@DETECTORS.register("hygiene")
class Hygiene(Detector):
    """The number of findings: no word, a file name, an address or markup, boilerplate, a rare script, far too long."""

    summary = "Empty captions, file names, addresses, boilerplate, another script than the rest; captions alone"
    weight = 1.5
    kind = "hygiene"

    def score(self, signals: Signals) -> Scores:
        texts = [own[0].strip() for own in signals.captions]
        scripts = [_script(text) for text in texts]
        counts = Counter(one for one in scripts if one)
        usual = {one for one, times in counts.items() if times >= 0.05 * len(texts)}
        length = np.array([len(text.split()) for text in texts])
        long = LONG * max(10.0, float(np.quantile(length, 0.95)))
        found = [
            (not any(map(str.isalpha, text)))
            + bool(_FILE.search(text))
            + bool(_ADDRESS.search(text))
            + bool(_BOILERPLATE.search(text))
            + bool(script and script not in usual)
            for text, script in zip(texts, scripts, strict=True)
        ]
        return np.array(found, dtype=np.float64) + (length > long)

    def certain(self, signals: Signals, score: Scores) -> Bool[np.ndarray, " n"]:  # noqa: ARG002
        """Return the pairs with more findings than usual."""
        return score > np.median(score)


def _script(text: str) -> str:
    """Return the most frequent script of a text's letters, by their Unicode names; "" without letters."""
    names = Counter(unicodedata.name(one, "").partition(" ")[0] for one in text if one.isalpha())
    return names.most_common(1)[0][0] if names else ""
