"""What each alignment's score may be, until the alignments declare it themselves: name in recipes, ranges, direction.

`model_range` is under a single model, `sign` 1 where a model that fits the pair better has the larger value;
memorization is sign (mean over models that saw the pair - mean over those that did not). `finds_wrong_captions`: it
ranked planted ones above the rest on the shipped data (docs/validation.md, "Planted wrong captions").
"""

from typing import NamedTuple


class Declared(NamedTuple):
    model_range: tuple[float, float]
    sign: int
    finds_wrong_captions: bool


DECLARED = {
    "clip": Declared((-3.0, 3.0), 1, finds_wrong_captions=True),
    "cmc": Declared((-0.5, 4.0), 1, finds_wrong_captions=True),
    "sslmem-image": Declared((0.0, 2.0), -1, finds_wrong_captions=False),
    "sslmem-text": Declared((0.0, 2.0), -1, finds_wrong_captions=False),
    "confidence": Declared((0.0, 1.0), 1, finds_wrong_captions=False),
}
