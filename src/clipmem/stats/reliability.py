"""How well scores agree with the true effect of training on a pair, which is only seen through noise.

With D_k(i), k = 1..K, the difference that pair i makes in the k-th of K pairs of shadow models, independent given the
pair, D_k(i) = T(i) + noise. The truth T is the mean over infinitely many of them; its variance over pairs is that of
their mean D, less the noise. A score s whose errors do not depend on the noise has cov(s, D) = cov(s, T), so that

    corr(s, T) = corr(s, D) / sqrt(reliability of D)                                      (Spearman 1904)

When not to trust it: shadow models that share more than the truth, such as a bias towards long captions, agree more
with each other than with the effect of training on a pair.
"""

from itertools import combinations
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64
from scipy.stats import rankdata

from clipmem.base.errors import require
from clipmem.base.random import generator
from clipmem.stats.checks import Codes, as_finite, check_same_length

DRAWS = 400
_SPLITS, _ALL = 32, 6  # halves of shadow models; the most pairs of which all are taken
_SMALLEST = 0.01  # of a reliability: below it, nothing can be said
Effects = Float64[np.ndarray, "pair n"]  # by pair of shadow models


class Noise(NamedTuple):
    """Variance over pairs of the mean effect D, of its noise, and the reliability 1 - noise / total, cut to [0, 1]."""

    total: float
    noise: float

    @property
    def reliability(self) -> float:
        """Squared correlation of D with the truth."""
        return max(0.0, 1 - self.noise / self.total) if self.total > 0 else 0.0


class Estimated(NamedTuple):
    """Scores of pairs as estimates of CLIPMem, higher = more memorized.

    Attributes:
        score: On the scale of CLIPMem if `calibrated`, otherwise only its order has a meaning.
        stderr: Standard error of each score on that scale; None if there is none.
        df: Its degrees of freedom.
        calibrated: Whether differences of scores have the size of differences of CLIPMem.
        own: Weight of the pair's own shadow models, from 0 to 1, if the score is p + own (D - p).
        predicted: p, which the pair's own D does not enter; None: the score itself.
        left_out: p fitted on all pairs of shadow models but a block of `in_blocks`; None: p is not fitted on them.
    """

    score: Float64[np.ndarray, " n"]
    stderr: Float64[np.ndarray, " n"] | None = None
    calibrated: bool = False
    own: float = 0.0
    predicted: Float64[np.ndarray, " n"] | None = None
    left_out: Effects | None = None
    df: float = np.inf


class Agreement(NamedTuple):
    """Expected rank correlation with the ground truth, in [-1, 1], and its interval over groups of pairs."""

    value: float
    low: float
    high: float


def noise_of(effect: Effects) -> Noise:
    """Estimate the noise of the mean effect D over K >= 2 pairs of shadow models: mean over i of var_k D_k(i) / K.

    D_k less its mean over pairs, which moves all pairs alike. Variances over k have K - 1, those over pairs n - 1.

    Raises:
        InputError: A value is not finite, or there are fewer than two pairs, or pairs of shadow models.

    Example:
        >>> noise_of(np.array([[1.0, 2.0, 3.0, 5.0], [0.0, 2.0, 4.0, 4.0]]))
        Noise(total=3.0625, noise=0.22916666666666666)
    """
    effect = as_finite("effects", effect)
    got = f"{len(effect)} of {effect.shape[1]} pairs"
    hint = "Train another pair of shadow models."
    require(min(effect.shape) > 1, "effects", got, "two or more of two or more pairs", hint)
    centered = effect - effect.mean(axis=1, keepdims=True)
    noise = float(centered.var(axis=0, ddof=1).sum()) / (effect.shape[1] - 1) / len(effect)
    return Noise(float(effect.mean(axis=0).var(ddof=1)), noise)


def own_weight(effect: Float64[np.ndarray, " n"], predicted: Float64[np.ndarray, " n"], noise: float) -> float:
    """Weight of a pair's own residual D - p in the score p + w (D - p): w = 1 - noise / var(D - p), at least 0.

    It has the smallest expected squared error if what p misses of the truth is independent of the noise.
    """
    rest = float((effect - predicted).var(ddof=1))
    return max(0.0, 1 - noise / rest) if rest > 0 else 0.0


def in_blocks(effect: Effects, count: int) -> Float64[np.ndarray, "block n"]:
    """Return the mean D of each of at most `count` blocks of pairs of shadow models."""
    return np.stack([block.mean(axis=0) for block in np.array_split(effect, min(len(effect), count))])


def share_of_truth(effect: Effects, left_out: Effects) -> float:
    """Estimate cov(p, T) / cov(p, D) of a p that was fitted on D, for K >= 2 pairs of shadow models: 0 or more.

    Noise that pairs with like features share within a pair of shadow models (one of them learns rare words better)
    enters p, so that p agrees with D more than with the truth. p_-k, fitted on the mean D_-k of all D but D_k, knows no
    noise of D_k: r = sum cov(p_-k, D_k) / sum cov(p_-k, D_-k) is the share at K - 1. As the noise of a mean is 1 / K of
    that of each, the share at K is K r / (K - 1 + r). `effect` has D_k, `left_out` p_-k, shape (K, n).
    """
    k = len(effect)
    others = (effect.sum(axis=0) - effect) / (k - 1)
    centered = left_out - left_out.mean(axis=1, keepdims=True)
    fitted = float((centered * others).sum())
    r = max(0.0, float((centered * effect).sum()) / fitted) if fitted > 0 else 1.0
    return k * r / (k - 1 + r)


def agreement(
    effect: Effects, estimated: Estimated, groups: Codes, *, seed: int = 0, draws: int = DRAWS, confidence: float = 0.95
) -> Agreement | None:
    """Estimate the rank correlation of the score p + w (D - p) with the truth, without knowing the truth.

    For p alone, R is that of `halved`. With weight w > 0 the score depends on the noise of D; then

        R · P(score) / P(p),  P(score) = (cov(p, T) (1 - w) + w (total - noise)) / (sd(score) sqrt(total - noise))

    and P(p) = cov(p, D) / (sd(p) sqrt(total - noise)), with cov(p, T) = cov(p, D) unless p was fitted on D, when
    `share_of_truth` of it is. With w = 1 it is the root of the `reliability` r. The interval is a bootstrap over groups
    of pairs, for these models.

    Args:
        effect: D_k of each pair, shape (K, n), K >= 2.
        estimated: p, w = `own`, and p fitted on all D but a block of them, `left_out`, if p was fitted on D.
        groups: Group of each pair, shape (n,).
        seed: Of the bootstrap.
        draws: Number of its draws.
        confidence: Level of the interval.

    Returns:
        The agreement, cut to [-1, 1]; None if the effects have no reliability (r < 0.01): they say nothing then.
    """
    predicted = estimated.score if estimated.predicted is None else estimated.predicted
    weight, left_out = estimated.own, estimated.left_out
    check_same_length("effects", effect.shape[1], "predictions", len(predicted))
    check_same_length("effects", effect.shape[1], "groups", len(groups))
    weights = group_weights(groups, generator(seed, "agreement"), draws)
    mean, (c, shared) = effect.mean(axis=0), halved(effect, predicted, weights)
    r = reliability(effect, weights)
    if r[0] < _SMALLEST:
        return None
    if weight < 1:
        estimates = shared / np.sqrt(np.maximum(c, _SMALLEST))
        true = 1.0 if left_out is None else share_of_truth(in_blocks(effect, len(left_out)), left_out)
        estimates *= _gain(mean, predicted, noise_of(effect), weight, true)
    else:
        estimates = np.sqrt(np.maximum(r, 0))
    estimates = np.clip(estimates, -1, 1)
    low, high = np.quantile(estimates[1:], [(1 - confidence) / 2, (1 + confidence) / 2])
    return Agreement(float(estimates[0]), float(low), float(high))


def group_weights(groups: Codes, stream: np.random.Generator, draws: int = DRAWS) -> Float64[np.ndarray, "w n"]:
    """Return how often each pair counts: once in the first row, then by bootstrap draws of the groups of pairs."""
    codes = np.unique(groups, return_inverse=True)[1]
    count = int(codes.max()) + 1
    times = stream.multinomial(count, np.full(count, 1 / count), size=draws)[:, codes]
    return np.vstack([np.ones((1, len(codes))), times]).astype(np.float64)


def _gain(mean: np.ndarray, predicted: np.ndarray, noise: Noise, weight: float, true: float) -> float:
    """P(score) / P(p), see `agreement`, where cov(p, T) is the share `true` of cov(p, D): that share without w."""
    real, shared = noise.total - noise.noise, float(np.cov(predicted, mean)[0, 1])
    if weight == 0 or real <= 0 or shared <= 0:
        return true
    score = predicted + weight * (mean - predicted)
    return float((true * shared * (1 - weight) + weight * real) / score.std(ddof=1) / (shared / predicted.std(ddof=1)))


def correlations(
    a: Float64[np.ndarray, "v n"], b: Float64[np.ndarray, "v n"], weights: Float64[np.ndarray, "w n"]
) -> Float64[np.ndarray, "v w"]:
    """Return Pearson's correlation of rows of a and of b under each row of weights; 0 if one of them is constant."""
    a, b = (values - values.mean(axis=1, keepdims=True) for values in (a, b))
    share = weights.T / weights.sum(axis=1)
    mean_a, mean_b, square_a, square_b, product = (x @ share for x in (a, b, a * a, b * b, a * b))
    spread = np.sqrt((square_a - mean_a**2) * (square_b - mean_b**2))
    return np.divide(product - mean_a * mean_b, spread, out=np.zeros_like(product), where=spread > 0)


def reliability(effect: Effects, weights: Float64[np.ndarray, "w n"]) -> Float64[np.ndarray, " w"]:
    """Return the reliability of the ranks of the mean D, from the c of `halved` (Spearman 1910, Brown 1910).

    m c / (1 + (m - 1) c), m = K / (K // 2); one value per row of weights over pairs.
    """
    c, m = halved(effect, effect[0], weights)[0], len(effect) / (len(effect) // 2)
    return m * c / (1 + (m - 1) * np.maximum(c, 0))


def halved(
    effect: Effects, score: Float64[np.ndarray, " n"], weights: Float64[np.ndarray, "w n"]
) -> tuple[Float64[np.ndarray, " w"], Float64[np.ndarray, " w"]]:
    """Return the mean rank correlations c of the mean D of some models with that of others, and of a score with both.

    Both are K // 2 pairs of shadow models: all such halves up to K = 6, 32 drawn ones of more. The second divided by
    sqrt(c) is the score's correlation with the truth. From rankings by single D, c could not be told: if few pairs have
    much larger effects than all others, these agree more than their noise allows. One value per row of weights.
    """
    k, h = len(effect), len(effect) // 2
    orders = generator(0, "halves of shadow models").permuted(np.tile(np.arange(k), (_SPLITS, 1)), axis=1).tolist()
    if k <= _ALL:
        orders = [[*a, *b] for a in combinations(range(k), h) for b in combinations(sorted({*range(k)} - {*a}), h)]
    pairs = [rankdata([effect[rows].mean(0) for rows in (order[:h], order[h : 2 * h])], axis=1) for order in orders]
    a, b = np.stack(pairs, axis=1)
    shared = correlations(np.tile(rankdata(score), (2 * len(a), 1)), np.concatenate([a, b]), weights)
    return correlations(a, b, weights).mean(axis=0), shared.mean(axis=0)
