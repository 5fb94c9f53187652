"""In/out scores of the subsample protocol, and how sure they are: jackknife and bootstrap over models.

R models train on random parts of the data. With x_ri the alignment (or any other measure) of pair i under model r,
a_i models that had it and b_i that had not,

    score_i = mean_{r: i in D_r} x_ri - mean_{r: i not in D_r} x_ri            (Feldman & Zhang 2020, section 2).

The score is about pairs *and* the other data: all intervals here treat the models as draws, each with its own random
part of the data. A balanced draw (every pair in equally many models) keeps them valid: given the counts, a pair's
models are a uniform draw from all models, for which s_in²/a + s_out²/b is on average not too small (Neyman 1923). The
intervals know nothing of what all R models share (one size of part, one recipe, near-duplicates that were not found).
Intervals of many pairs are not simultaneous.

Which interval? How often each holds the truth (95 % asked for) and its median width, for 300 simulated studies of
150 pairs with models on random halves, drawn balanced (noise: sd 0.05 in, about 0.3 out; half of a model's variance
is shared by all its pairs):

    R     jackknife       moderated       bootstrap       mean over pairs (bootstrap)
    8     0.947 (0.81)    0.945 (0.62)    0.839 (0.48)    0.857 (0.20)
    16    0.948 (0.47)    0.946 (0.43)    0.898 (0.38)    0.903 (0.16)
    32    0.952 (0.31)    0.953 (0.30)    0.927 (0.28)    0.943 (0.12)

The figures are good to about 0.005 (0.04 in the last column). So `variance="moderated"` is the narrowest that about
holds what it claims; a pair's own few numbers ("jackknife") do too, in a wider interval. The percentile bootstrap is
too narrow, at 32 models still a little: do not show it as 95 %. Numbers again:
`pytest tests/science/test_interval_coverage.py -s`.

Numpy float64 arrays. A pair that no model had, or that all had, has NaN everywhere (null in a table), and so has
the standard error of a pair with only one model on a side, which says nothing about that side's spread; the counts
say why.
"""

from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float64, Int
from scipy import special, stats

from clipmem.base.errors import InputError
from clipmem.base.random import bootstrap_counts, generator
from clipmem.functional.checks import as_finite, check_confidence, check_draws
from clipmem.functional.intervals import Interval, inverse_trigamma

_CELLS = 2_000_000  # resampled scores held at a time


class InOutMeans(NamedTuple):
    """Score of each pair with its two means and counts, shape (n,); NaN where a side has no model."""

    score: Float64[np.ndarray, "n"]
    mean_in: Float64[np.ndarray, "n"]
    mean_out: Float64[np.ndarray, "n"]
    count_in: Int[np.ndarray, "n"]
    count_out: Int[np.ndarray, "n"]


class ModelInterval(NamedTuple):
    """Standard error, degrees of freedom and interval of each pair's score over models, shape (n,); NaN: undefined."""

    stderr: Float64[np.ndarray, "n"]
    df: Float64[np.ndarray, "n"]
    low: Float64[np.ndarray, "n"]
    high: Float64[np.ndarray, "n"]


class BootstrapInterval(NamedTuple):
    """Percentile interval of each pair's score and the share of draws that had models on both sides, shape (n,)."""

    low: Float64[np.ndarray, "n"]
    high: Float64[np.ndarray, "n"]
    usable: Float64[np.ndarray, "n"]


class _Side(NamedTuple):
    """One side (in or out) of every pair: number of models, mean, sample variance (NaN below two models)."""

    models: Float64[np.ndarray, "n"]
    mean: Float64[np.ndarray, "n"]
    variance: Float64[np.ndarray, "n"]


def _checked(
    values: Float[np.ndarray, "model n"], member: Bool[np.ndarray, "other_model other_n"]
) -> Float64[np.ndarray, "model n"]:
    values = as_finite("values", values)
    if values.shape != member.shape:
        raise InputError(
            "member",
            got=f"shape {tuple(member.shape)}",
            expected=f"shape {tuple(values.shape)}, that of the values",
            hint="Say for each model and pair whether the model trained on it.",
        )
    if len(values) == 0:
        raise InputError(
            "values", got="no model", expected="at least one model", hint="Train and score some models first."
        )
    return values


def _sides(values: Float64[np.ndarray, "model n"], member: Bool[np.ndarray, "model n"]) -> tuple[_Side, _Side]:
    sides: list[_Side] = []
    for mask in (member, ~member):
        count = mask.sum(axis=0).astype(np.float64)
        some, several = count > 0, count > 1
        mean = np.full(values.shape[1], np.nan)
        np.divide(np.where(mask, values, 0.0).sum(axis=0), count, out=mean, where=some)
        deviation = np.where(mask, values - np.where(some, mean, 0.0), 0.0)
        variance = np.full(values.shape[1], np.nan)
        np.divide((deviation**2).sum(axis=0), count - 1, out=variance, where=several)
        # Rounding in the mean would leave equal values a variance of 1e-34 or so.
        spread = np.where(mask, values, -np.inf).max(axis=0) - np.where(mask, values, np.inf).min(axis=0)
        sides.append(_Side(count, mean, np.where(several & (spread == 0), 0.0, variance)))
    return sides[0], sides[1]


def in_out_means(values: Float[np.ndarray, "model n"], member: Bool[np.ndarray, "model n"]) -> InOutMeans:
    """Subtract the mean over the models that had not a pair from that over the models that had it.

    score_i = mean_in - mean_out (Feldman & Zhang 2020). Higher is more memorized when higher values mean better fitted.

    Args:
        values: Alignment (or another measure) of each pair under each model, finite, shape (model, n).
        member: Whether the model trained on the pair, shape (model, n).

    Returns:
        Scores, means and counts. Score and the empty side's mean are NaN for pairs that all or no models had.

    Raises:
        InputError: Shapes differ, a value is not finite, or there is no model.

    Example:
        >>> found = in_out_means(np.array([[0.75, 1.0], [0.25, 1.0]]), np.array([[True, True], [False, True]]))
        >>> found.score.tolist(), found.count_out.tolist()
        ([0.5, nan], [1, 0])
    """
    values = _checked(values, member)
    inside, outside = _sides(values, member)
    counts = (side.models.astype(np.int64) for side in (inside, outside))
    return InOutMeans(inside.mean - outside.mean, inside.mean, outside.mean, *counts)


def _moderate(side: _Side) -> tuple[Float64[np.ndarray, "n"], Float64[np.ndarray, "n"]]:
    """Return each pair's variance shrunk towards that of all pairs, and its degrees of freedom (Smyth 2004).

    As `intervals.variance_prior`, for variances whose degrees of freedom d_i = count - 1 differ: with
    e_i = log s_i² - digamma(d_i/2) + log(d_i/2), var(e) = mean trigamma(d_i/2) + trigamma(d0/2) and
    mean(e) = log s0² - digamma(d0/2) + log(d0/2). A pair with one model on the side takes the prior alone.
    """
    df = np.maximum(side.models - 1, 0.0)
    known = df > 0
    shrunk, freedom = np.where(known, side.variance, np.nan), np.where(known, df, np.nan)
    variances, own = side.variance[known], df[known]
    if len(variances) < 3 or not variances.any():
        return shrunk, freedom
    centre = float(np.median(variances)) or float(variances.mean())
    logs = np.log(np.maximum(variances, 1e-5 * centre)) - special.digamma(own / 2) + np.log(own / 2)
    excess = float(logs.var(ddof=1)) - float(special.polygamma(1, own / 2).mean())
    if excess < 1e-6:
        prior, prior_df = float(variances @ own / own.sum()), np.inf
        shrunk = np.where(side.models > 0, prior, np.nan)
    else:
        prior_df = 2 * inverse_trigamma(excess)
        prior = float(np.exp(logs.mean() + special.digamma(prior_df / 2) - np.log(prior_df / 2)))
        mixed = (prior_df * prior + df * np.where(known, side.variance, 0.0)) / (prior_df + df)
        shrunk = np.where(side.models > 0, mixed, np.nan)
    # As in limma: never more than the degrees of freedom of all variances together.
    return shrunk, np.where(side.models > 0, np.minimum(prior_df + df, own.sum()), np.nan)


def jackknife_models(
    values: Float[np.ndarray, "model n"],
    member: Bool[np.ndarray, "model n"],
    *,
    confidence: float = 0.95,
    variance: Literal["jackknife", "moderated"] = "jackknife",
) -> ModelInterval:
    """Estimate the standard error of each pair's score over models, and its confidence interval.

    The jackknife leaves out one model at a time, on its own side (in or out, the counts are given):
    stderr² = Σ_sides (c - 1)/c Σ_r (θ_(r) - θ_(.))², which for a difference of means is exactly s_in²/a + s_out²/b.
    The interval is score ± t(df) stderr with the degrees of freedom of Welch and Satterthwaite.

    With `variance="moderated"` each side's variance is first shrunk towards that of all pairs (Smyth 2004; the prior of
    `seed_interval`, for counts that differ), and gains the prior's degrees of freedom. It borrows from the other
    pairs: for a pair that is far noisier than they are it covers less.

    Args:
        values: Measure of each pair under each model, finite, shape (model, n).
        member: Whether the model trained on the pair, shape (model, n).
        confidence: Coverage of the interval, between 0 and 1.
        variance: "jackknife" takes each pair alone; "moderated" lets it borrow from the others.

    Returns:
        stderr, df, low, high. All NaN where a side has no model, and with "jackknife" where it has one. Where both
        sides are constant stderr is 0 and df is NaN.

    Raises:
        InputError: As for `in_out_means`; the confidence is not between 0 and 1; or `variance` is another word.

    Example:
        >>> values = np.array([[1.0], [3.0], [0.0], [1.0]])
        >>> found = jackknife_models(values, np.array([[True], [True], [False], [False]]))
        >>> round(float(found.stderr[0]), 6), round(float(found.df[0]), 4)
        (1.118034, 1.4706)
    """
    check_confidence(confidence)
    values = _checked(values, member)
    if variance not in ("jackknife", "moderated"):
        raise InputError(
            "variance", got=repr(variance), expected="'jackknife' or 'moderated'", hint="Choose one of the two."
        )
    sides = _sides(values, member)
    score = sides[0].mean - sides[1].mean
    parts: list[Any] = []
    freedoms: list[Any] = []
    for side in sides:
        spread, freedom = _moderate(side) if variance == "moderated" else (side.variance, side.models - 1)
        parts.append(spread / np.where(side.models > 0, side.models, np.nan))
        freedoms.append(freedom)
    total = parts[0] + parts[1]
    stderr = np.sqrt(total)
    # As shares of the sum, so that tiny variances do not vanish when squared; a constant side has no share.
    share = [np.divide(part, total, out=np.full_like(part, np.nan), where=total > 0) for part in parts]
    lost = [np.where(s > 0, s**2 / f, s * 0) for s, f in zip(share, freedoms, strict=True)]
    df: Any = 1 / (lost[0] + lost[1])
    quantile = stats.t.ppf((1 + confidence) / 2, df)
    half = np.where(stderr == 0, 0.0, quantile * stderr)
    return ModelInterval(stderr, df, score - half, score + half)


def _draws(
    values: Float64[np.ndarray, "model n"], member: Bool[np.ndarray, "model n"], seed: int, draws: int
) -> Iterator[Float64[np.ndarray, "draw n"]]:
    """Yield blocks of resampled scores; NaN where a draw has no model on a side of a pair."""
    models, n = values.shape
    stream = generator(seed, "bootstrap", "models")
    inside, outside = member.astype(np.float64), (~member).astype(np.float64)
    sums = [values * inside, values * outside]
    step = max(1, _CELLS // max(n, 1))
    for start in range(0, draws, step):
        rows = min(step, draws - start)
        times = bootstrap_counts(stream, rows, models).astype(np.float64)
        means: list[Any] = []
        for total, count in zip(sums, (inside, outside), strict=True):
            drawn = times @ count
            means.append(np.divide(times @ total, drawn, out=np.full_like(drawn, np.nan), where=drawn > 0))
        yield means[0] - means[1]


def bootstrap_models(
    values: Float[np.ndarray, "model n"],
    member: Bool[np.ndarray, "model n"],
    *,
    seed: int,
    draws: int = 2000,
    confidence: float = 0.95,
) -> BootstrapInterval:
    """Find each pair's percentile interval by drawing whole models with replacement.

    A draw takes as many models as there are, with replacement, each with all its pairs. For each pair only the
    draws count that have at least one model which had it and one which had not: the interval is conditional on
    that. `usable` is their share; below about 0.9 the interval rests on the few models that happened to be there.

    Args:
        values: Measure of each pair under each model, finite, shape (model, n).
        member: Whether the model trained on the pair, shape (model, n).
        seed: Seed of the draws: the same seed gives the same interval.
        draws: How many draws, >= 1. All of them are held: 8 n draws bytes.
        confidence: Coverage of the interval, between 0 and 1. It is too narrow with few models (see the module).

    Returns:
        low, high and usable, shape (n,). low and high are NaN for pairs that all or no models had, where usable is 0.

    Raises:
        InputError: As for `in_out_means`; or `draws` or `confidence` is out of range.

    Example:
        >>> values, member = np.array([[1.0], [1.0], [0.0], [0.0]]), np.array([[True], [True], [False], [False]])
        >>> found = bootstrap_models(values, member, seed=0)
        >>> found.low.tolist(), found.high.tolist(), bool(found.usable[0] < 1)
        ([1.0], [1.0], True)
    """
    check_confidence(confidence)
    check_draws(draws)
    values = _checked(values, member)
    n = values.shape[1]
    low, high, usable = np.full(n, np.nan), np.full(n, np.nan), np.zeros(n)
    tails = [(1 - confidence) / 2, (1 + confidence) / 2]
    width = max(1, _CELLS // draws)
    for start in range(0, n, width):
        columns = slice(start, start + width)
        drawn = np.concatenate(list(_draws(values[:, columns], member[:, columns], seed, draws)))
        defined = ~np.isnan(drawn)
        usable[columns] = defined.mean(axis=0)
        some = defined.any(axis=0)
        if some.any():
            bounds = np.nanquantile(drawn[:, some], tails, axis=0)
            low[columns][some], high[columns][some] = bounds
    return BootstrapInterval(low, high, usable)


def bootstrap_models_mean(
    values: Float[np.ndarray, "model n"],
    member: Bool[np.ndarray, "model n"],
    *,
    seed: int,
    draws: int = 2000,
    confidence: float = 0.95,
) -> Interval:
    """Average the scores of the given pairs, with an interval that knows that they share their models.

    Each draw takes whole models with replacement and averages the scores of the pairs that have models on both
    sides in it. The interval is about other models, for these pairs; `bootstrap_mean` is about other pairs.

    Args:
        values: Measure of each pair under each model, finite, shape (model, n).
        member: Whether the model trained on the pair, shape (model, n).
        seed: Seed of the draws.
        draws: How many draws, >= 1.
        confidence: Coverage of the interval, between 0 and 1.

    Returns:
        The mean over the pairs that have a score, and its interval.

    Raises:
        InputError: No pair has models on both sides, and as for `bootstrap_models`.

    Example:
        >>> values, member = np.array([[1.0, 0.0], [0.0, 0.5]]), np.array([[True, False], [False, True]])
        >>> bootstrap_models_mean(values, member, seed=0)
        Interval(mean=0.75, low=0.75, high=0.75)
    """
    check_confidence(confidence)
    check_draws(draws)
    score = in_out_means(values, member).score
    defined = ~np.isnan(score)
    if not defined.any():
        raise InputError(
            "member",
            got=f"no pair of {len(score)} with models on both sides",
            expected="at least one",
            hint="Train more models on random parts of the data.",
        )
    values, chosen = as_finite("values", values)[:, defined], member[:, defined]
    means: list[float] = []
    for block in _draws(values, chosen, seed, draws):
        known = ~np.isnan(block)
        counts = known.sum(axis=1)
        means.extend((np.where(known, block, 0.0).sum(axis=1)[counts > 0] / counts[counts > 0]).tolist())
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(float(score[defined].mean()), float(low), float(high))
