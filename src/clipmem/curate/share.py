"""How many captions are wrong: the observed pairs as a mixture of right ones and of ones like those planted."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float64
from scipy.stats import norm

from clipmem.curate.planting import Planted

TOP = 0.3  # share of the planted captions that the estimate looks at: those least like right ones


class Share(NamedTuple):
    """Share of wrong captions with its interval; `found`: more than chance gives."""

    share: float
    low: float
    high: float
    found: bool


def share_of(planted: Planted, confidence: float) -> Share:
    """Estimate the share of wrong captions."""
    both = np.concatenate([planted.random, planted.alike])
    over = float((planted.observed > np.quantile(both, 1 - TOP)).mean())
    spread = float(norm.ppf((1 + confidence) / 2) * np.sqrt(over / len(planted.observed))) / TOP
    share = over / TOP
    return Share(share, max(0.0, share - spread), min(1.0, share + spread), share - spread > 0.02)


def posterior(
    planted: Planted, share: float, score: Float64[np.ndarray, "n"], exchanged: Bool[np.ndarray, "n"]
) -> Float64[np.ndarray, "n"]:
    """Return the probability that each caption is wrong, which never falls as the score rises."""
    from sklearn.isotonic import IsotonicRegression  # slow to import

    ratio = _ratio(planted)
    own = np.clip(share * ratio, 0, 1)
    fitted = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(score[exchanged], own[exchanged])
    return np.asarray(fitted.predict(score), dtype=np.float64)


def _ratio(planted: Planted) -> Float64[np.ndarray, "n"]:
    """Density of planted over that of observed pairs at each observed one, rising with the log odds, mean 1."""
    from sklearn.isotonic import IsotonicRegression  # slow to import

    both = np.concatenate([planted.random, planted.alike])
    x = np.concatenate([planted.observed, both])
    label = np.repeat((0.0, 1.0), (len(planted.observed), len(both)))
    weight = np.repeat((1 / len(planted.observed), 1 / len(both)), (len(planted.observed), len(both)))
    odds = IsotonicRegression(out_of_bounds="clip").fit(x, label, sample_weight=weight).predict(planted.observed)
    ratio = odds / np.maximum(1 - odds, 1e-6)
    return ratio / ratio.mean()
