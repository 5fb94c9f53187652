"""Comparisons of groups of pairs and of conditions, correction for multiple tests, and verdicts on claims.

An undefined number is None; the docstrings say when. The t tests are implemented here because scipy's give NaN or warn
on constant scores; the rank tests are scipy's.

`compare_groups` compares two groups of pairs of a study as independent draws. Pairs share their models and may have
near-duplicates, so its p-values can be too small: also report `crossed_mean` and the noise floor. With thousands of
pairs every difference is significant: read the difference, Hedges' g and the superiority.

`paired_test` compares two conditions with one number per seed each (mean CLIPMem, recall); pairing removes the effect
of the seed. With K seeds the Wilcoxon p-value is at least 2 / 2^K (0.25 for three, 0.0625 for five), whatever the
effect: read the difference and its interval.
"""

import math
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Float, Float64
from scipy import special, stats

from clipmem.base.errors import InputError, require, require_one_of
from clipmem.stats.checks import as_finite, check_confidence, check_not_empty, check_same_length


class Welch(NamedTuple):
    """Difference of two means with its interval, and Welch's test; None if undefined (see `welch`)."""

    difference: float
    low: float | None
    high: float | None
    t: float | None
    df: float | None
    p: float | None


class GroupComparison(NamedTuple):
    """Comparisons of two groups, named as in summary.json; None if undefined."""

    difference: float
    low: float | None
    high: float | None
    welch_t: float | None
    welch_df: float | None
    welch_p: float | None
    mannwhitney_u: float
    mannwhitney_p: float
    hedges_g: float | None
    superiority: float


class PairedTest(NamedTuple):
    """Mean difference and interval, paired t test, Wilcoxon test and effect size; None if undefined."""

    difference: float
    low: float | None
    high: float | None
    t: float | None
    df: int | None
    p: float | None
    wilcoxon_p: float
    effect: float | None


def _two_groups(
    a: Float[np.ndarray, " n"], b: Float[np.ndarray, " m"]
) -> tuple[Float64[np.ndarray, " n"], Float64[np.ndarray, " m"]]:
    a, b = as_finite("a", a), as_finite("b", b)
    check_not_empty("a", a)
    check_not_empty("b", b)
    return a, b


def _variance(values: Float64[np.ndarray, " n"]) -> float:
    """Sample variance, exactly 0 for equal values despite rounding in the mean."""
    return 0.0 if values.min() == values.max() else float(values.var(ddof=1))


def welch(a: Float[np.ndarray, " n"], b: Float[np.ndarray, " m"], confidence: float = 0.95) -> Welch:
    """Test whether two means differ, without assuming equal variances.

    t = (ā - b̄) / sqrt(s_a²/n + s_b²/m), with the degrees of freedom of Welch (1947) and Satterthwaite (1946): (s_a²/n
    + s_b²/m)² / [ (s_a²/n)²/(n-1) + (s_b²/m)²/(m-1) ].

    Returns:
        The difference ā - b̄, its interval, t, df and the two-sided p-value. All but the difference are None if a group
        has fewer than two scores, or if both groups are constant.

    Raises:
        InputError: A group is empty, a score is not finite, or the confidence is not between 0 and 1.

    Example:
        >>> result = welch(np.array([1.0, 2.0, 3.0]), np.array([0.0, 1.0]))
        >>> result.difference, round(result.t, 4), round(result.df, 4)
        (1.5, 1.964, 2.8824)
    """
    check_confidence(confidence)
    a, b = _two_groups(a, b)
    difference = float(a.mean() - b.mean())
    part_a, part_b = (_variance(x) / len(x) for x in (a, b))
    variance = part_a + part_b
    if min(len(a), len(b)) < 2 or variance == 0:
        return Welch(difference, None, None, None, None, None)
    # as shares of the sum: squares of tiny variances would vanish
    share_a, share_b = part_a / variance, part_b / variance
    df = 1 / (share_a**2 / (len(a) - 1) + share_b**2 / (len(b) - 1))
    low, high, t, p = _student(difference, variance**0.5, df, confidence)
    return Welch(difference, low, high, t, df, p)


def _student(mean: float, stderr: float, df: int | float, confidence: float) -> tuple[float, float, float, float]:
    half, t = float(stats.t.ppf((1 + confidence) / 2, df)) * stderr, mean / stderr
    return mean - half, mean + half, t, float(2 * stats.t.sf(abs(t), df))


def _hedges(df: int) -> float:
    """Return the small-sample correction J(v) = Γ(v/2) / (sqrt(v/2) Γ((v-1)/2)) (Hedges 1981)."""
    return float(np.exp(special.gammaln(df / 2) - special.gammaln((df - 1) / 2)) / np.sqrt(df / 2))


def _u(a: Float64[np.ndarray, " n"], b: Float64[np.ndarray, " m"]) -> float:
    """Return the Mann-Whitney U of `a`: the number of couples with a above b, ties counted as a half."""
    ranks = stats.rankdata(np.concatenate([a, b]))
    return float(ranks[: len(a)].sum() - len(a) * (len(a) + 1) / 2)


def hedges_g(a: Float[np.ndarray, " n"], b: Float[np.ndarray, " m"]) -> float | None:
    """Return the difference of means in pooled standard deviations, corrected for small groups.

    g = J(v) (ā - b̄) / s, s² = [(n-1) s_a² + (m-1) s_b²] / v, v = n + m - 2, J(v) = Γ(v/2) / (sqrt(v/2) Γ((v-1)/2))
    (Hedges 1981). None if both groups are constant, or with fewer than four scores in total (J needs v > 1).
    """
    a, b = _two_groups(a, b)
    df, squares = len(a) + len(b) - 2, sum((len(x) - 1) * _variance(x) for x in (a, b))
    if df < 2 or squares == 0:
        return None
    return _hedges(df) * float(a.mean() - b.mean()) / (squares / df) ** 0.5


def superiority(a: Float[np.ndarray, " n"], b: Float[np.ndarray, " m"]) -> float:
    """Return the probability that a score of `a` is higher than one of `b`, in [0, 1]; ties count as a half.

    P(a > b) + ½ P(a = b) = U / (n m) (Vargha & Delaney 2000). It is the AUROC of the score as a detector of `a`.

    Raises:
        InputError: A group is empty or a score is not finite.

    Example:
        >>> superiority(np.array([1.0, 2.0]), np.array([1.0, 0.0]))
        0.875
    """
    a, b = _two_groups(a, b)
    return _u(a, b) / (len(a) * len(b))


def compare_groups(a: Float[np.ndarray, " n"], b: Float[np.ndarray, " m"], confidence: float = 0.95) -> GroupComparison:
    """Compare two groups of pairs by `welch`, the Mann-Whitney test, `hedges_g` and `superiority`.

    U = #{a > b} + ½ #{a = b} over all couples (Mann & Whitney 1947); exact p for small groups without ties, else normal
    with continuity and tie corrections (scipy's `mannwhitneyu`, two-sided), and 1 if all scores are equal.
    `confidence` is the coverage of Welch's interval.

    Raises:
        InputError: A group is empty, a score is not finite, or the confidence is not between 0 and 1.

    Example:
        >>> found = compare_groups(np.array([1.0, 1.0]), np.array([0.0, 0.0]))
        >>> found.welch_t is None, found.mannwhitney_u
        (True, 4.0)
    """
    means = welch(a, b, confidence)
    a, b = _two_groups(a, b)
    equal = min(a.min(), b.min()) == max(a.max(), b.max())
    p = 1.0 if equal else float(stats.mannwhitneyu(a, b, alternative="two-sided").pvalue)
    return GroupComparison(*means, _u(a, b), p, hedges_g(a, b), superiority(a, b))


def paired_test(a: Float[np.ndarray, " seed"], b: Float[np.ndarray, " seed"], confidence: float = 0.95) -> PairedTest:
    """Compare two conditions seed by seed: `a` and `b` have the same seeds in the same order.

    With d_k = a_k - b_k over K seeds: t = d̄ / (s_d / sqrt(K)), df = K - 1, interval d̄ ± t_df s_d / sqrt(K);
    Wilcoxon's signed-rank test (scipy's; zeros left out; exact below 51 seeds without ties); effect size
    g = J(K - 1) d̄ / s_d with J of `hedges_g`.

    Returns:
        t, df, p and the interval are None with one seed or if all differences are equal; the effect size also with two
        seeds (J needs v > 1). The Wilcoxon p is 1 if all differences are 0.

    Raises:
        InputError: There is no seed, lengths differ, a value is not finite, or the confidence is not between 0 and 1.

    Example:
        >>> found = paired_test(np.array([0.5, 0.75, 1.0]), np.array([0.25, 0.25, 0.25]))
        >>> found.difference, found.df, round(found.p, 4), found.wilcoxon_p
        (0.5, 2, 0.0742, 0.25)
    """
    check_confidence(confidence)
    a, b = as_finite("a", a), as_finite("b", b)
    check_same_length("a", len(a), "b", len(b))
    check_not_empty("a", a)
    differences = a - b
    mean, seeds = float(differences.mean()), len(differences)
    signed_rank: Any = stats.wilcoxon(differences[differences != 0]) if differences.any() else None
    wilcoxon_p = 1.0 if signed_rank is None else float(signed_rank.pvalue)
    if seeds < 2 or np.ptp(differences) <= 8 * np.finfo(float).eps * np.abs([a, b]).max():  # equal but for rounding
        return PairedTest(mean, None, None, None, None, None, wilcoxon_p, None)
    sd, df = float(differences.std(ddof=1)), seeds - 1
    low, high, t, p = _student(mean, sd / seeds**0.5, df, confidence)
    return PairedTest(mean, low, high, t, df, p, wilcoxon_p, _hedges(df) * mean / sd if df > 1 else None)


def holm(p: Float[np.ndarray, " test"]) -> Float64[np.ndarray, " test"]:
    """Adjust p-values to control the family-wise error rate.

    With p_(1) <= ... <= p_(m): adjusted p_(i) = max_{j <= i} min(1, (m - j + 1) p_(j)) (Holm 1979; scipy has none).
    Choose the family of tests before looking at the results.

    Args:
        p: p-values in [0, 1], NaN for tests without one, which do not count, shape (test,).

    Returns:
        Adjusted p-values in [0, 1], in the order given, NaN where `p` is, shape (test,).

    Raises:
        InputError: A value is outside [0, 1].

    Example:
        >>> holm(np.array([0.01, 0.04, 0.03])).tolist()
        [0.03, 0.06, 0.06]
    """
    values: Any = np.asarray(p, dtype=np.float64)
    outside = (values < 0) | (values > 1)
    if outside.any():
        first = int(np.argmax(outside))
        raise InputError("p-values", got=f"{values[first]:.6g} at index {first}", expected="numbers from 0 to 1")
    adjusted = values.copy()
    defined = np.flatnonzero(~np.isnan(values))
    order = defined[np.argsort(values[defined], kind="stable")]
    factors = np.arange(len(order), 0, -1)
    adjusted[order] = np.maximum.accumulate(np.minimum(values[order] * factors, 1.0))
    return adjusted


Answer = Literal["yes", "no", "inconclusive"]


class Claim(NamedTuple):
    """A claim about an effect.

    Attributes:
        side: "above" (effect > 0), "below" (effect < 0) or "zero" (|effect| < size).
        size: Claimed absolute size, >= 0 (0: only the side is claimed); for "zero" the margin, > 0.
    """

    side: Literal["above", "below", "zero"]
    size: float = 0.0


def verdict(low: float | None, high: float | None, claim: Claim) -> Answer:
    """Decide whether the interval of an effect supports a claim.

    A claim is a set of effects: those above 0, below 0, or within a margin of 0. The answer is `yes` if the whole
    interval is in the set, `no` if none of it is, and otherwise `inconclusive`. For a claim with a size, the answer is
    also `no` if the interval excludes that size without establishing the side.

    A `yes` concerns the side of an effect, not its size. With 95% intervals, one true null in twenty is called `yes` or
    `no`. An interval over a few seeds applies to these data, this length of training and this model only.

    above: yes if low > 0; no if high < size, or high <= 0; below: the same for the interval [-high, -low].
    zero: yes if -size < low and high < size; no if low >= size or high <= -size. Otherwise, or if there is no interval
    (None): inconclusive.

    Raises:
        InputError: low is above high, an end or the size is not a number, or a claim of "zero" has no margin.

    Example:
        >>> verdict(0.1, 0.3, Claim("above")), verdict(-0.1, 0.2, Claim("above"))
        ('yes', 'inconclusive')
        >>> verdict(-0.1, 0.02, Claim("above", 0.05)), verdict(-0.1, 0.02, Claim("zero", 0.2))
        ('no', 'yes')
    """
    _check(low, high, claim)
    if low is None or high is None:
        return "inconclusive"
    if claim.side == "zero":
        if -claim.size < low and high < claim.size:
            return "yes"
        return "no" if low >= claim.size or high <= -claim.size else "inconclusive"
    if claim.side == "below":
        low, high = -high, -low
    if low > 0:
        return "yes"
    return "no" if high < claim.size or high <= 0 else "inconclusive"


def _check(low: float | None, high: float | None, claim: Claim) -> None:
    for name, value in (("low", low), ("high", high), ("size", claim.size)):
        hint = "Use None if there is no interval."
        require(value is None or not math.isnan(value), name, "nan", "a number", hint)
    require_one_of("side of the claim", claim.side, ("above", "below", "zero"))
    positive = claim.size > 0 if claim.side == "zero" else claim.size >= 0
    got, hint = f"{claim.size:.6g} with side {claim.side!r}", "Give the size without its sign."
    require(positive, "size of the claim", got, "0 or more, above 0 for 'zero'", hint)
    if low is not None and high is not None:
        require(low <= high, "interval", f"[{low:.6g}, {high:.6g}]", "low <= high", "Swap the two ends.")
