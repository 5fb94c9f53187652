"""How sure a score is: intervals over seeds, over pairs, and the floor that seeds alone make.

`seed_interval` is about one pair, over training runs. `bootstrap_mean` is about a mean over pairs, over other
pairs and other runs. Neither knows of a bias that all runs share (a near-duplicate of the pair in g's data,
another pipeline for g). Intervals of many pairs are not simultaneous: of 1,000 pairs with true score 0, about
50 have a 95 % interval without 0.
"""

from collections.abc import Iterator
from itertools import combinations
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float64, Int
from scipy import special, stats

from clipmem.base.random import bootstrap_counts, derive_seed, generator
from clipmem.base.require import require
from clipmem.functional.checks import as_finite, check_confidence, check_draws, check_not_empty, check_same_length

_CELLS = 2_000_000  # resampled groups held at a time


class Interval(NamedTuple):
    """A mean with its confidence interval; low and high are None where they are undefined."""

    mean: float
    low: float | None
    high: float | None


class SeedInterval(NamedTuple):
    """Standard error and interval of each pair's score over seeds, shape (n,); NaN with one seed."""

    stderr: Float64[np.ndarray, "n"]
    low: Float64[np.ndarray, "n"]
    high: Float64[np.ndarray, "n"]


class VariancePrior(NamedTuple):
    """Prior of the variances, s0² d0 / chi-square(d0). `df` goes from 0 (none) to inf (one variance)."""

    df: float
    variance: float


class NoiseFloor(NamedTuple):
    """Differences between target models of two seeds, over all pairs of seeds; see `noise_floor`."""

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


def variance_prior(variances: Float[np.ndarray, "n"], df: Float[np.ndarray, "n"]) -> VariancePrior:
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
    prior: VariancePrior, variances: Float64[np.ndarray, "n"], df: Float64[np.ndarray, "n"]
) -> Float64[np.ndarray, "n"]:
    """Shrink variances towards their prior: (d0 s0² + d s²) / (d0 + d) (limma's squeezeVar)."""
    if np.isinf(prior.df):
        return np.full(len(variances), prior.variance)
    return (prior.df * prior.variance + df * variances) / (prior.df + df)


def seed_interval(differences: Float[np.ndarray, "seed n"], confidence: float = 0.95) -> SeedInterval:
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
    quantile = float(stats.t.ppf((1 + confidence) / 2, min(prior.df + df, max(n, 1) * df)))
    return SeedInterval(stderr, mean - quantile * stderr, mean + quantile * stderr)


def _group_sums(
    values: Float64[np.ndarray, "seed n"], groups: Int[np.ndarray, "n"]
) -> tuple[Float64[np.ndarray, "seed group"], Float64[np.ndarray, "group"]]:
    """Return the sum of each seed's values in each group, and the size of each group."""
    names, codes = np.unique(groups, return_inverse=True)
    sums = [np.bincount(codes, weights=row, minlength=len(names)) for row in values]
    return np.stack(sums), np.bincount(codes, minlength=len(names)).astype(np.float64)


def count_blocks(
    stream: np.random.Generator, draws: int, count: int, width: int
) -> Iterator[Int[np.ndarray, "draw group"]]:
    """Yield how often each of `count` groups is drawn, a block of draws at a time; a draw is `width` numbers later."""
    step = max(1, _CELLS // width)
    for start in range(0, draws, step):
        yield bootstrap_counts(stream, min(step, draws - start), count)


def bootstrap_mean(
    values: Float[np.ndarray, "seed n"],
    groups: Int[np.ndarray, "n"],
    *,
    seed: int,
    draws: int = 2000,
    confidence: float = 0.95,
) -> Interval:
    """Average over seeds and pairs, with a percentile interval from a two-way bootstrap.

    Each draw takes as many groups as there are, with replacement, and as many seeds as there are, with
    replacement (when there are two or more); its mean is over all values so drawn. Pairs of a group
    (near-duplicates, one concept) go together.

    With few groups (below about 10) or few seeds (below about 5) the interval is too narrow; with one seed it
    says nothing about other training runs.

    Args:
        values: Score of each pair under each seed, shape (seed, n).
        groups: Group of each pair, any integers, shape (n,).
        seed: Seed of the draws: the same seed gives the same interval.
        draws: How many draws, >= 1.
        confidence: Coverage of the interval, between 0 and 1.

    Returns:
        The mean and its interval. With one group low and high are None: one cluster has no spread.

    Raises:
        InputError: There is no value, one is not finite, the lengths differ, or `draws` or `confidence` is
            out of range.

    Example:
        >>> bootstrap_mean(np.array([[1.0, 3.0]]), np.array([0, 1]), seed=0)
        Interval(mean=2.0, low=1.0, high=3.0)
    """
    check_confidence(confidence)
    values = as_finite("values", values)
    check_not_empty("values", values)
    seeds, n = values.shape
    check_same_length("values", n, "groups", len(groups))
    check_draws(draws)
    sums, sizes = _group_sums(values, groups)
    count = len(sizes)
    mean = float(values.mean())
    if count == 1:
        return Interval(mean, None, None)
    group_stream, seed_stream = generator(seed, "bootstrap", "groups"), generator(seed, "bootstrap", "seeds")
    means: list[Float64[np.ndarray, " draw"]] = []
    for times in count_blocks(group_stream, draws, count, count):
        drawn = seed_stream.integers(seeds, size=(len(times), seeds))
        totals = np.take_along_axis(times @ sums.T, drawn, axis=1).sum(axis=1)
        means.append(totals / (times @ sizes * seeds))
    low, high = np.quantile(np.concatenate(means), [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(mean, float(low), float(high))


def noise_floor(
    target: Float[np.ndarray, "seed n"],
    groups: Int[np.ndarray, "n"],
    *,
    seed: int,
    draws: int = 2000,
    confidence: float = 0.95,
) -> NoiseFloor | None:
    """Compare target models of different seeds: what a score would be if f and g differed in the seed alone.

    D_kl = A(f_k) - A(f_l) over all pairs of seeds k < l (design, section 2). `mean` is that of D over pairs and pairs
    of seeds; its sign hangs on the order of the seeds, so read only its size and whether the interval holds 0. `low`
    and `high` are for it, over groups of pairs; the seeds stay as they are. `sd` is the spread of D over the pairs
    about each seed pair's own mean (pooled), `mean_abs` the mean of |D|; neither depends on the order. All are for one
    model against one other; a mean over K seeds is about sqrt(K) times steadier.

    `target` is the alignment of each pair under the model f of each seed, shape (seed, n); the other arguments and the
    errors are those of `bootstrap_mean`.

    Returns:
        The floor, or None with one seed. low and high are None with one group.

    Example:
        >>> floor = noise_floor(np.array([[0.5, 0.2], [0.4, 0.4]]), np.array([0, 1]), seed=0)
        >>> round(floor.mean, 6), round(floor.mean_abs, 6)
        (-0.05, 0.15)
    """
    check_confidence(confidence)
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
    mean = bootstrap_mean(
        total[None] / len(couples), groups, seed=derive_seed(seed, "noise floor"), draws=draws, confidence=confidence
    )
    return NoiseFloor(len(couples), mean.mean, mean.low, mean.high, float(np.sqrt(variance)), absolute)
