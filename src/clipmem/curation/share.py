"""How many captions are wrong: the observed pairs as a mixture of right ones and of ones like those planted."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float64
from scipy.stats import norm, poisson, rankdata

from clipmem.curation.planting import Planted

TOP = 0.3  # share of the planted captions that the estimate looks at: those least like right ones
RIGHT = 0.9  # of the pairs that look like these, a tenth are right ones (on drawings with 0 to 30% wrong captions)
CLEAR = 0.875  # smallest AUROC of planted against right captions for which a number can be told
BLIND = 0.75  # largest one at which no pair is called a suspect
PARTS = (0.05, 0.1, 0.2, 0.3)  # shares of the planted captions that bound the share of wrong ones between these
CHANCE = 0.015  # comes out on clean data (drawings: 0.013)


class Share(NamedTuple):
    """Share of wrong captions.

    Attributes:
        share: The estimate, for wrong captions half of which are exchanged at random.
        low: Lower end of the interval: all are exchanged at random; 0 if not `found`.
        high: Upper end: all are exchanged with those of the same sort of thing.
        found: Whether there are more than chance gives: more than a share of 1.5% explains with the given confidence.
        clear: Whether planted captions are told from right ones well enough for a number; with few different captions
            "none" needs an upper end below 1.5%.
        separation: AUROC of planted against right captions, given `share`.
        assumed: Share that the probabilities of pairs assume: 0 if none are found, less than `share` if not `clear`.
    """

    share: float
    low: float
    high: float
    found: bool
    clear: bool
    separation: float
    assumed: float


def share_of(planted: Planted, confidence: float) -> Share:
    """Estimate the share π of wrong captions from the tail in which there are hardly any right ones.

    With t the 70% quantile of the planted captions' log odds, 30% of the wrong captions are above t, if they are like
    those planted, and

        π = .9 (share of observed pairs above t) / .3

    The interval adds sampling error to the uncertainty about the kind of the errors: t from captions planted at random
    gives the lower end, t from those of the same sort of thing the upper one; or the other way round, if these are told
    from observed pairs more easily. With few different captions π is too small by the odds and too large by the mean
    fit: the share is the mean of both, and the interval contains those of both.

    Where planted captions are not told from right ones, right ones lie above t as well, and π is too large. The
    probabilities then assume the smallest (share of observed pairs above t) / p, t the 1 - p quantile, p = .05 to .3,
    times (AUROC - .75) / (.875 - .75), at least 0.
    """
    both = np.concatenate([planted.random, planted.alike])
    z, n = float(norm.ppf((1 + confidence) / 2)), len(planted.observed)
    shares = np.array(
        [
            RIGHT / TOP * float((own.observed > np.quantile(one, 1 - TOP)).mean())
            for own in (planted, *planted.fits)
            for one in (np.concatenate([own.random, own.alike]), own.random, own.alike)
        ]
    )
    margins = z * np.sqrt(np.maximum(shares, 1 / n) * RIGHT / TOP / n)
    share, low, high = float(shares[::3].mean()), float((shares - margins).min()), float((shares + margins).max())
    values = rankdata(np.concatenate([both, planted.observed]))[: len(both)]
    area = (float(values.mean()) - (len(both) + 1) / 2) / n
    separation = min(1.0, (area - share / 2) / max(1 - share, 0.1))
    chance = float(poisson.ppf((1 + confidence) / 2, CHANCE * TOP * n / RIGHT))
    found = separation >= CLEAR and float(shares[0]) * TOP * n / RIGHT > chance
    clear = separation >= CLEAR and (found or not planted.fits or high <= CHANCE)
    low = max(0.0, min(low, share)) if found else 0.0
    least = min(float((planted.observed > np.quantile(both, 1 - part)).mean()) / part for part in PARTS)
    told = float(np.clip((separation - BLIND) / (CLEAR - BLIND), 0, 1))
    assumed = (share if found else 0.0) if clear else min(share, least * told)
    return Share(min(share, 1.0), low, min(1.0, max(high, share)), found, clear, separation, min(assumed, 1.0))


def posterior(
    planted: Planted, share: float, score: Float64[np.ndarray, " n"], exchanged: Bool[np.ndarray, " n"]
) -> Float64[np.ndarray, " n"]:
    """Return the probability that each caption is wrong, which never falls as the score rises."""
    from sklearn.isotonic import IsotonicRegression  # slow to import

    ratio = _ratio(planted)
    own = np.clip(share * ratio, 0, 1)
    fitted = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(score[exchanged], own[exchanged])
    return np.asarray(fitted.predict(score), dtype=np.float64)


def _ratio(planted: Planted) -> Float64[np.ndarray, " n"]:
    """Density of planted over that of observed pairs at each observed one, rising with the log odds, mean 1."""
    from sklearn.isotonic import IsotonicRegression  # slow to import

    both = np.concatenate([planted.random, planted.alike])
    x = np.concatenate([planted.observed, both])
    label = np.repeat((0.0, 1.0), (len(planted.observed), len(both)))
    weight = np.repeat((1 / len(planted.observed), 1 / len(both)), (len(planted.observed), len(both)))
    odds = IsotonicRegression(out_of_bounds="clip").fit(x, label, sample_weight=weight).predict(planted.observed)
    ratio = odds / np.maximum(1 - odds, 1e-6)
    return ratio / ratio.mean()
