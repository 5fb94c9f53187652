"""How sure a score is: intervals over seeds and over pairs, and the noise that seeds alone make.

`seed_interval` is about one pair, over training runs. `crossed_mean` is about a mean over pairs, over other
pairs and other runs. Neither knows of a bias that all runs share (a near-duplicate of the pair in g's data,
another pipeline for g). Intervals of many pairs are not simultaneous: of 1,000 pairs with true score 0, about
50 have a 95 % interval without 0.
"""

from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float64, Int
from scipy import special, stats

from clipmem.base.errors import require
from clipmem.stats.checks import BySeed, Codes, as_finite, check_confidence, check_not_empty, check_same_length


class Interval(NamedTuple):
    """A mean with its confidence interval; low and high are None where they are undefined.

    `over` is what the interval accounts for: "pairs" (other pairs, these models), or "pairs and seeds".
    """

    mean: float
    low: float | None
    high: float | None
    over: str = "pairs"


class SeedInterval(NamedTuple):
    """Standard error and interval of each pair's score over seeds, shape (n,), NaN with one seed; of t, its `df`."""

    stderr: Float64[np.ndarray, " n"]
    low: Float64[np.ndarray, " n"]
    high: Float64[np.ndarray, " n"]
    df: float = 0.0


class VariancePrior(NamedTuple):
    """Prior of the variances, s0² d0 / chi-square(d0). `df` goes from 0 (none) to inf (one variance)."""

    df: float
    variance: float


class SeedNoise(NamedTuple):
    """Differences between target models of two seeds, over all pairs of seeds; see `seed_noise`."""

    seed_pairs: int
    mean: float
    low: float | None
    high: float | None
    sd: float
    mean_abs: float


def _inverse_trigamma(x: float) -> float:
    """Solve trigamma(y) = x for y > 0 by Newton's method on 1/trigamma (Smyth 2004, appendix)."""
    if x > 1e7:
        return x**-0.5
    y = 0.5 + 1 / x
    for _ in range(50):
        value = float(special.polygamma(1, y))
        step = value * (1 - value / x) / float(special.polygamma(2, y))
        y += step
        if -step / y < 1e-10:
            break
    return y


def variance_prior(variances: Float[np.ndarray, " n"], df: Float[np.ndarray, " n"]) -> VariancePrior:
    """Fit the prior of the variances, with df d_i >= 1 each, to all pairs' variances by the moments of log s².

    With e_i = log s_i² - digamma(d_i/2) + log(d_i/2): var(e) = mean trigamma(d_i/2) + trigamma(d0/2) and
    mean(e) = log s0² - digamma(d0/2) + log(d0/2) (Smyth 2004, section 6.2; limma's fitFDist). Zeros are raised to 1e-5
    of the median (of the mean when the median is zero), because log 0 would decide alone. The prior's df is 0 with
    fewer than two pairs (nothing to borrow from) and inf when the variances scatter no more than chance makes them.

    Example:
        >>> variance_prior(np.array([1.0, 1.0, 1.0]), np.full(3, 4.0))
        VariancePrior(df=inf, variance=1.0)
    """
    variances = as_finite("variances", variances)
    if len(variances) < 2 or not variances.any():
        return VariancePrior(0.0, 0.0)
    center = float(np.median(variances)) or float(variances.mean())
    logs = np.log(np.maximum(variances, 1e-5 * center)) - special.digamma(df / 2) + np.log(df / 2)
    excess = float(logs.var(ddof=1)) - float(special.polygamma(1, df / 2).mean())
    if excess < 1e-6:
        return VariancePrior(np.inf, float(variances @ df / df.sum()))
    prior_df = 2 * _inverse_trigamma(excess)
    log_variance = float(logs.mean()) + float(special.digamma(prior_df / 2)) - np.log(prior_df / 2)
    return VariancePrior(prior_df, float(np.exp(log_variance)))


def moderated(
    prior: VariancePrior, variances: Float64[np.ndarray, " n"], df: Float64[np.ndarray, " n"]
) -> Float64[np.ndarray, " n"]:
    """Shrink variances towards their prior: (d0 s0² + d s²) / (d0 + d) (limma's squeezeVar)."""
    if np.isinf(prior.df):
        return np.full(len(variances), prior.variance)
    return (prior.df * prior.variance + df * variances) / (prior.df + df)


def seed_interval(differences: BySeed, confidence: float = 0.95) -> SeedInterval:
    """Estimate the standard error of each pair's CLIPMem over seeds, and its confidence interval.

    s̃² = (d0 s0² + d s²) / (d0 + d), stderr = sqrt(s̃² / K), interval = mean ± t(d0 + d) stderr,
    with d = K-1 and the prior (d0, s0²) from `variance_prior`: the moderated variance of Smyth 2004 (limma's
    squeezeVar). With 2 to 5 seeds a pair's own variance is nearly useless; the prior lends it that of the
    other pairs. As in limma, the degrees of freedom are at most n d, those of all variances together.

    Do not use it for a mean over pairs: the pairs share their models, so their errors are correlated.
    Coverage holds on average over pairs; for a pair that is far noisier than the others it is less.

    Args:
        differences: differences[k] = A(f_k) - A(g_k) of each pair, one row a seed, shape (seed, n).
        confidence: Coverage of the interval, between 0 and 1.

    Returns:
        stderr, low and high, shape (n,). All NaN with one seed. When the seeds agree exactly on every pair,
        stderr is 0.

    Raises:
        InputError: There is no seed, a difference is not finite, or the confidence is not between 0 and 1.

    Example:
        >>> interval = seed_interval(np.array([[0.5, 0.1, 0.3], [0.7, 0.2, 0.1]]))
        >>> bool((interval.low < [0.6, 0.15, 0.2]).all())
        True
    """
    check_confidence(confidence)
    differences = as_finite("differences", differences)
    seeds, n = differences.shape
    require(seeds > 0, "differences", "no seed", "at least one seed", "Train at least one pair of models.")
    if seeds == 1:
        nan = np.full(n, np.nan)
        return SeedInterval(nan, nan.copy(), nan.copy())
    df = seeds - 1
    mean, variances = differences.mean(axis=0), differences.var(axis=0, ddof=1)
    # Rounding in the mean would leave equal values a variance of 1e-34 or so.
    variances = np.where(differences.max(axis=0) == differences.min(axis=0), 0.0, variances)
    freedom = np.full(n, float(df))
    prior = variance_prior(variances, freedom)
    stderr = np.sqrt(moderated(prior, variances, freedom) / seeds)
    df = min(prior.df + df, max(n, 1) * df)
    quantile = float(stats.t.ppf((1 + confidence) / 2, df))
    return SeedInterval(stderr, mean - quantile * stderr, mean + quantile * stderr, float(df))


def crossed_interval(
    mean: float,
    influence: BySeed,
    groups: Codes,
    *,
    confidence: float = 0.95,
    min_seeds: int = 3,
    df: float | None = None,
) -> Interval:
    """Give a mean over training runs and pairs its interval, with runs and groups of pairs as crossed random effects.

    With e_kj the influence summed over group j under seed k, times the number of groups J, K seeds, e_k. and e_.j its
    means, s² sample variances:

        A = s²(e_k.) / K      B = s²(e_.j) / J      C = Σ_kj (e_kj - e_k. - e_.j + e_..)² / ((K-1)(J-1) K J)
        half² = t(J-1)² B + t(K-1)² max(A - C, 0)

    B holds the pairs' variance and the residual's; what A has beyond the residual is the seeds' own. Simulated coverage
    of 95 % intervals is 93 to 97 % for 3 and 5 seeds (`pytest tests/science/test_interval_coverage.py -s`). Two seeds
    cannot carry an interval over seeds: with fewer than `min_seeds`, the interval is over pairs only, for these models
    (half = t(J-1) sqrt(B)), and `over` says so.

    Args:
        mean: The statistic, averaged over seeds.
        influence: What each pair adds to each seed's statistic minus `mean`: statistic_k - mean = Σ_i influence_ki, to
            first order. Shape (seed, n); sums to 0.
        groups: Group of each pair (near-duplicates go together), any integers, shape (n,).
        confidence: Coverage of the interval, between 0 and 1.
        min_seeds: The fewest seeds that an interval over seeds may rest on, 2 or more.
        df: Degrees of freedom of B, by default J-1.

    Returns:
        The mean and its interval. With one group low and high are None: one cluster has no spread.
    """
    check_confidence(confidence)
    seeds, count = len(influence), len(np.unique(groups))
    over = "pairs and seeds" if seeds >= min_seeds else "pairs"
    if count == 1:
        return Interval(mean, None, None, over)
    of_pairs, of_seeds = crossed_variances(influence, groups)
    tail = (1 + confidence) / 2
    variance = of_pairs * float(stats.t.ppf(tail, count - 1 if df is None else df)) ** 2
    if seeds >= min_seeds:
        variance += of_seeds * float(stats.t.ppf(tail, seeds - 1)) ** 2
    half = float(np.sqrt(variance))
    return Interval(mean, mean - half, mean + half, over)


def two_sample_interval(
    by_seed: Float[np.ndarray, " seed"],
    influences: Sequence[Float[np.ndarray, "seed _"]],
    groups: Sequence[Int[np.ndarray, " _"]],
    *,
    confidence: float,
) -> Interval:
    """Give a difference between two samples of pairs, one value a seed, its `crossed_interval`, from two seeds on.

    The influences of sample r, with J_r groups, are multiplied by sqrt(J_r / (J_r - 1)), for its own mean is subtracted
    (and by sqrt(1 - 1/J), for B and C divide by J - 1). With B_r its part of B, t(J-1) gives way to that of Welch and
    Satterthwaite, t(d) with d = (B_1 + B_2)² / Σ_r B_r² / (J_r - 1).

    Simulated coverage of 95 % intervals under three seeds, with 100 pairs in one sample and 2, 3, 5 or 10 in the other,
    is 91, 95, 96 and 96 % (half-difference; `pytest tests/science/test_interval_coverage.py -s -k few -m ""`).

    Args:
        by_seed: The difference under each seed.
        influences: What each pair of each sample adds to it, without the seed's own part: sums to 0 in each sample.
        groups: Group of each pair; the samples have no group in common, or all.
        confidence: Coverage of the interval, between 0 and 1.

    Returns:
        The mean and its interval. low and high are None with one group in a sample: it has no spread.
    """
    mean, every = float(by_seed.mean()), np.concatenate(groups)
    total, freedom = len(np.unique(every)), np.array([len(np.unique(codes)) - 1 for codes in groups])
    if not freedom.all():
        return Interval(mean, None, None, "pairs and seeds" if len(by_seed) > 1 else "pairs")
    parts = np.array([crossed_variances(*sample)[0] for sample in zip(influences, groups, strict=True)])
    df = np.clip(parts.sum() ** 2 / max(float((parts**2 / freedom).sum()), np.finfo(float).tiny), 1, total - 1)
    scales = np.sqrt((1 + 1 / freedom) * (1 - 1 / total))
    influence = np.concatenate([x * scale for x, scale in zip(influences, scales, strict=True)], axis=1)
    # a seed's part is spread over all pairs: on each side alone, what cancels would count as the residual
    influence += (by_seed - mean)[:, None] / influence.shape[1]
    return crossed_interval(mean, influence, every, confidence=confidence, min_seeds=2, df=float(df))


def crossed_variances(influence: BySeed, groups: Codes) -> tuple[float, float]:
    """Return B and max(A - C, 0) of `crossed_interval`: the variance from pairs, and that from seeds (0 with one).

    There must be two groups or more.
    """
    codes = np.unique(groups, return_inverse=True)[1]
    seeds, count = len(influence), int(codes.max()) + 1
    effects = np.stack([np.bincount(codes, weights=row, minlength=count) for row in influence]) * count
    by_seed, by_group = effects.mean(axis=1), effects.mean(axis=0)
    pairs = float(by_group.var(ddof=1)) / count
    if seeds == 1:
        return pairs, 0.0
    rest = effects - by_seed[:, None] - by_group + effects.mean()
    residual = float((rest**2).sum()) / ((seeds - 1) * (count - 1) * seeds * count)
    return pairs, max(float(by_seed.var(ddof=1)) / seeds - residual, 0.0)


def crossed_mean(values: BySeed, groups: Codes, *, confidence: float = 0.95) -> Interval:
    """Average over seeds and pairs, with the interval of `crossed_interval`.

    The influence of pair i under seed k on the mean is (x_ki - mean) / n.

    Args:
        values: Score of each pair under each seed, shape (seed, n).
        groups: Group of each pair, any integers, shape (n,).
        confidence: Coverage of the interval, between 0 and 1.

    Returns:
        The mean and its interval: over pairs and seeds with three seeds or more, else over pairs.

    Raises:
        InputError: There is no value, one is not finite, the lengths differ, or `confidence` is out of range.

    Example:
        >>> crossed_mean(np.array([[1.0, 3.0, 2.0]]), np.array([0, 1, 2]), confidence=0.5)
        Interval(mean=2.0, low=1.5285954792089682, high=2.471404520791032, over='pairs')
    """
    values = checked_values(values, groups)
    mean = float(values.mean())
    return crossed_interval(mean, (values - mean) / values.shape[1], groups, confidence=confidence)


def half_difference(
    candidate: BySeed,
    independent: Float[np.ndarray, "seed m"],
    candidate_groups: Codes,
    independent_groups: Int[np.ndarray, " m"],
    *,
    confidence: float = 0.95,
) -> Interval:
    """Estimate the mean CLIPMem of a four-way study as half the difference of its candidate and independent pairs.

        (mean over C of x - mean over I of x) / 2,      x_ki = A(f_k) - A(g_k)

    C and I are exchangeable and f and g saw one of them each, so it estimates the same mean as C alone; what makes f
    better or worse than g cancels out, and with it most of the noise of the seeds. The interval is that of
    `two_sample_interval`: for the seed noise that is left, two seeds cover 91 to 97 %. No group is in both roles.

    Returns:
        The half-difference and its interval; low and high are None with one group in a role.

    Raises:
        InputError: As for `crossed_mean`.

    Example:
        >>> own, others = np.array([[0.5, 0.25]]), np.array([[-0.25, -0.5]])
        >>> half_difference(own, others, np.array([0, 1]), np.array([2, 3])).mean
        0.375
    """
    both = [checked_values(candidate, candidate_groups), checked_values(independent, independent_groups)]
    means = [values.mean(axis=1, keepdims=True) for values in both]
    influences = [sign * (x - mean) / (2 * x.shape[1]) for sign, x, mean in zip((1, -1), both, means, strict=True)]
    by_seed = (means[0] - means[1])[:, 0] / 2
    return two_sample_interval(by_seed, influences, [candidate_groups, independent_groups], confidence=confidence)


def checked_values(values: BySeed, groups: Int[np.ndarray, " other"]) -> Float64[np.ndarray, "seed n"]:
    """Return `values` as float64; raise an `InputError` unless they are finite, with a group for each pair."""
    values = as_finite("values", values)
    check_not_empty("values", values)
    check_same_length("values", values.shape[1], "groups", len(groups))
    return values


def seed_noise(target: BySeed, groups: Codes, *, confidence: float = 0.95) -> SeedNoise | None:
    """Compare target models of different seeds: what a score would be if f and g differed in the seed alone.

    D_kl = A(f_k) - A(f_l) over all pairs of seeds k < l (design, section 2). `mean` is that of D over pairs and pairs
    of seeds; its sign hangs on the order of the seeds, so read only its size and whether the interval contains 0. `low`
    and `high` are for it, over groups of pairs; the seeds stay as they are. `sd` is the spread of D over the pairs
    about each seed pair's own mean (pooled), `mean_abs` the mean of |D|; neither depends on the order. All are for one
    model against one other; a mean over K seeds is about sqrt(K) times steadier.

    `target` is the alignment of each pair under the model f of each seed, shape (seed, n); the other arguments and the
    errors are those of `crossed_mean`.

    Returns:
        The noise, or None with one seed. low and high are None with one group.

    Example:
        >>> noise = seed_noise(np.array([[0.5, 0.2], [0.4, 0.4]]), np.array([0, 1]))
        >>> round(noise.mean, 6), round(noise.mean_abs, 6)
        (-0.05, 0.15)
    """
    target = as_finite("target", target)
    check_not_empty("target", target)
    if len(target) == 1:
        return None
    couples = list(combinations(range(len(target)), 2))
    total = np.zeros(target.shape[1])
    variance = absolute = 0.0
    for k, other in couples:
        difference = target[k] - target[other]
        total += difference
        variance += float(difference.var()) / len(couples)
        absolute += float(np.abs(difference).mean()) / len(couples)
    mean = crossed_mean(total[None] / len(couples), groups, confidence=confidence)
    return SeedNoise(len(couples), mean.mean, mean.low, mean.high, float(np.sqrt(variance)), absolute)
