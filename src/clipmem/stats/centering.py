"""What the scores of held-out pairs say of the others: how much better f is than g, and the error of a single score.

When not to trust it: a control of other pairs than the candidates (easier ones, another source) is shifted by another
amount. A skewed control has a trimmed mean other than its mean; what is left of the control's own mean after
centering shows by how much.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float64, Int

from clipmem.stats.checks import BySeed, Codes, as_finite, check_confidence, check_not_empty
from clipmem.stats.intervals import Interval, checked_values, crossed_interval, crossed_variances, two_sample_interval

TRIM = 0.2  # share of the control left out at each end


class Shift(NamedTuple):
    """The trimmed mean of the control with its interval and standard error, None with one group of pairs.

    `over` is what the interval accounts for, as in `Interval`; `stderr` accounts for seeds as well from two on.
    """

    mean: float
    low: float | None
    high: float | None
    over: str
    stderr: float | None


class NoiseFloor(NamedTuple):
    """The share `confidence` of held-out `pairs` scores within `half_width` of `center`; see `noise_floor`."""

    pairs: int
    center: float
    half_width: float
    confidence: float


def trimmed_means(values: BySeed) -> tuple[Float64[np.ndarray, " seed"], Float64[np.ndarray, "seed n"]]:
    """Return each seed's 20 % trimmed mean and the influence of its pairs on it.

    With the values x_(1) ≤ ... ≤ x_(n) of a seed and h = floor(0.2 n),

        T = mean of x_(h+1), ..., x_(n-h)        influence_i = (w_i - mean w) / (n - 2h)

    where w_i is x_i clipped to [x_(h+1), x_(n-h)] (Tukey and McLaughlin 1963). A fifth of the pairs may be arbitrary at
    each end, such as near-duplicates of pairs that one model saw; and unlike the median's, its influence is smooth, so
    that the error follows without the density.
    """
    values = np.asarray(values, dtype=np.float64)
    n = values.shape[1]
    cut = int(TRIM * n)
    ordered = np.sort(values, axis=1)
    clipped = np.clip(values, ordered[:, [cut]], ordered[:, [n - cut - 1]])
    influence = (clipped - clipped.mean(axis=1, keepdims=True)) / (n - 2 * cut)
    return ordered[:, cut : n - cut].mean(axis=1), influence


def control_shift(control: BySeed, groups: Codes, *, confidence: float = 0.95) -> Shift:
    """Estimate how much better f is than g throughout: mean over seeds of the trimmed mean of the control's scores.

    The interval is that of `crossed_interval` with the influences of `trimmed_means`; stderr² is the variance over
    pairs plus that over seeds.

    Args:
        control: Scores x_ki = A(f_k) - A(g_k) of pairs that no model trained on, shape (seed, n).
        groups: Group of each pair, any integers, shape (n,).
        confidence: Coverage of the interval, between 0 and 1.

    Returns:
        The shift; 0: f and g are equally good.

    Raises:
        InputError: There is no value, one is not finite, the lengths differ, or `confidence` is out of range.

    Example:
        >>> control_shift(np.array([[-0.25, -0.25, -0.25, -0.125, 9.0]]), np.arange(5)).mean
        -0.20833333333333334
    """
    values = checked_values(control, groups)
    means, within = trimmed_means(values)
    mean = float(means.mean())
    influence = within + (means - mean)[:, None] / values.shape[1]
    interval = crossed_interval(mean, influence, groups, confidence=confidence)
    error = None if interval.low is None else float(np.sqrt(sum(crossed_variances(influence, groups))))
    return Shift(*interval, error)


def noise_floor(control: BySeed, *, confidence: float = 0.95) -> NoiseFloor | None:
    """Measure how far from 0 a pair can score by chance: the spread of held-out pairs, whose true score is 0.

    With the scores x_i = mean over seeds of x_ki of n held-out pairs and the center T of `control_shift`,

        h = the ceil(confidence (n + 1))-th smallest |x_i - T|

    is the quantile of split conformal prediction (Papadopoulos et al. 2002): a further held-out pair lies within h of T
    with at least this probability, but for the error of T. It includes what a standard error over seeds does not: which
    other pairs, perhaps alike, f and g happened to train on. A pair of another kind than the held-out ones has another
    floor.

    Args:
        control: Scores of pairs that no model trained on, shape (seed, n); one row if models are not paired by seed.
        confidence: Share of held-out pairs within the floor, between 0 and 1.

    Returns:
        The floor, or None where n < confidence / (1 - confidence): 19 pairs for 0.95.

    Raises:
        InputError: There is no value, one is not finite, or `confidence` is out of range.

    Example:
        >>> noise_floor(np.array([[-0.25, 0.0, 0.125, 0.125, 0.5]]), confidence=0.8)
        NoiseFloor(pairs=5, center=0.08333333333333333, half_width=0.4166666666666667, confidence=0.8)
    """
    control = as_finite("control", control)
    check_not_empty("control", control)
    check_confidence(confidence)
    center, pairs = float(trimmed_means(control)[0].mean()), control.shape[1]
    rank = int(np.ceil(confidence * (pairs + 1) - 1e-9))  # 0.95 * 20 is 19
    if rank > pairs:
        return None
    return NoiseFloor(pairs, center, float(np.sort(np.abs(control.mean(axis=0) - center))[rank - 1]), confidence)


def centered_mean(
    values: BySeed,
    control: Float[np.ndarray, "seed m"],
    groups: Codes,
    control_groups: Int[np.ndarray, " m"],
    *,
    confidence: float = 0.95,
) -> Interval:
    """Average scores over seeds and pairs, minus the shift of the control.

        mean of x_ki - mean over seeds of T_k,      T_k the trimmed mean of the control under seed k

    What shifts all pairs of a seed cancels, so the interval, which has the error of the shift in it, is over pairs and
    seeds from two seeds on: that of `two_sample_interval`. The control may be the pairs themselves.

    Args:
        values: Scores of some pairs under each seed, shape (seed, n).
        control: Scores of pairs that no model trained on, shape (seed, m).
        groups: Group of each pair, shape (n,).
        control_groups: Group of each control pair, in the same numbering, shape (m,).
        confidence: Coverage of the interval, between 0 and 1.

    Returns:
        The centered mean and its interval; low and high are None with one group of pairs, or of control pairs.

    Raises:
        InputError: As for `control_shift`.

    Example:
        >>> own, control = np.array([[0.5, 0.25]]), np.array([[-0.25, -0.25, -0.25]])
        >>> centered_mean(own, control, np.array([0, 1]), np.array([2, 3, 4])).mean
        0.625
    """
    values, control = checked_values(values, groups), checked_values(control, control_groups)
    means, within = trimmed_means(control)
    seed_means = values.mean(axis=1, keepdims=True)
    influences = [(values - seed_means) / values.shape[1], -within]
    return two_sample_interval(seed_means[:, 0] - means, influences, [groups, control_groups], confidence=confidence)
