"""Two groups of pairs compared: does one have higher scores than the other, by how much, and how surely.

Numpy float64 arrays in, single numbers out; any floating dtype on the way in. What is undefined is None,
never NaN: each function says when.

The tests take the pairs as independent draws. Pairs share their models and may come in groups of
near-duplicates, so a p-value is too small when either matters: put `bootstrap_mean` and the noise floor
beside it. With thousands of pairs every difference is
significant: read the difference, Hedges' g and the superiority.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float64
from scipy import special, stats

from clipmem.functional.checks import as_finite, check_confidence, check_not_empty


class Welch(NamedTuple):
    """Difference of two means with its interval, and Welch's test; None where undefined (see `welch`)."""

    difference: float
    low: float | None
    high: float | None
    t: float | None
    df: float | None
    p: float | None


class MannWhitney(NamedTuple):
    """U of the first group and the two-sided p-value of the Mann-Whitney test."""

    u: float
    p: float


class GroupComparison(NamedTuple):
    """All comparisons of two groups; the fields are named as in summary.json. None where undefined."""

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


def _two_groups(
    a: Float[np.ndarray, "n"], b: Float[np.ndarray, "m"]
) -> tuple[Float64[np.ndarray, "n"], Float64[np.ndarray, "m"]]:
    a, b = as_finite("a", a), as_finite("b", b)
    check_not_empty("a", a)
    check_not_empty("b", b)
    return a, b


def _variance(values: Float64[np.ndarray, "n"]) -> float:
    """Sample variance; exactly 0 for equal values, which rounding in the mean would otherwise hide."""
    return 0.0 if values.min() == values.max() else float(values.var(ddof=1))


def welch(a: Float[np.ndarray, "n"], b: Float[np.ndarray, "m"], confidence: float = 0.95) -> Welch:
    """Test whether two means differ, without assuming equal variances.

    t = (ā - b̄) / sqrt(s_a²/n + s_b²/m), with the degrees of freedom of Welch (1947) and Satterthwaite
    (1946): (s_a²/n + s_b²/m)² / [ (s_a²/n)²/(n-1) + (s_b²/m)²/(m-1) ].

    Args:
        a: Scores of the first group, shape (n,).
        b: Scores of the second group, shape (m,).
        confidence: Coverage of the interval of the difference.

    Returns:
        The difference ā - b̄, its interval, t, df and the two-sided p-value. All but the difference are None
        when a group has fewer than two scores, or when both groups are constant: nothing then says how sure
        the difference is.

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
    if len(a) < 2 or len(b) < 2:
        return Welch(difference, None, None, None, None, None)
    part_a, part_b = _variance(a) / len(a), _variance(b) / len(b)
    variance = part_a + part_b
    if variance == 0:
        return Welch(difference, None, None, None, None, None)
    # As shares of the sum, so that tiny variances do not vanish when squared.
    share_a, share_b = part_a / variance, part_b / variance
    df = 1 / (share_a**2 / (len(a) - 1) + share_b**2 / (len(b) - 1))
    stderr = variance**0.5
    t = difference / stderr
    half = float(stats.t.ppf((1 + confidence) / 2, df)) * stderr
    return Welch(difference, difference - half, difference + half, t, df, float(2 * stats.t.sf(abs(t), df)))


def _u(a: Float64[np.ndarray, "n"], b: Float64[np.ndarray, "m"]) -> float:
    """Count the couples with a above b, ties as a half: the rank sum of `a` less its least possible value."""
    ranks = stats.rankdata(np.concatenate([a, b]))
    return float(ranks[: len(a)].sum() - len(a) * (len(a) + 1) / 2)


def mann_whitney(a: Float[np.ndarray, "n"], b: Float[np.ndarray, "m"]) -> MannWhitney:
    """Test whether scores of one group tend to be higher than those of the other, by ranks.

    U = #{a > b} + ½ #{a = b} over all couples (Mann & Whitney 1947). Exact p for small groups without ties,
    else normal with continuity and tie corrections (scipy's `mannwhitneyu`, two-sided).

    Args:
        a: Scores of the first group, shape (n,).
        b: Scores of the second group, shape (m,).

    Returns:
        U in [0, n m] and p in [0, 1]. p is 1 when all scores of both groups are equal.

    Raises:
        InputError: A group is empty or a score is not finite.

    Example:
        >>> mann_whitney(np.array([3.0, 4.0]), np.array([1.0, 2.0])).u
        4.0
    """
    a, b = _two_groups(a, b)
    u = _u(a, b)
    if min(a.min(), b.min()) == max(a.max(), b.max()):
        return MannWhitney(u, 1.0)
    return MannWhitney(u, float(stats.mannwhitneyu(a, b, alternative="two-sided").pvalue))


def hedges_g(a: Float[np.ndarray, "n"], b: Float[np.ndarray, "m"]) -> float | None:
    """Express the difference of means in pooled standard deviations, corrected for small groups.

    g = J (ā - b̄) / s, s² = [(n-1) s_a² + (m-1) s_b²] / v, v = n + m - 2, J = Γ(v/2) / (sqrt(v/2) Γ((v-1)/2))
    (Hedges 1981).

    Args:
        a: Scores of the first group, shape (n,).
        b: Scores of the second group, shape (m,).

    Returns:
        g, or None when it is undefined: both groups constant, or fewer than four scores in all (J needs v >
        1).

    Raises:
        InputError: A group is empty or a score is not finite.

    Example:
        >>> round(hedges_g(np.array([1.0, 2.0, 3.0]), np.array([0.0, 1.0, 2.0])), 4)
        0.7979
    """
    a, b = _two_groups(a, b)
    df = len(a) + len(b) - 2
    if df < 2:
        return None
    pooled = sum((len(x) - 1) * _variance(x) for x in (a, b) if len(x) > 1) / df
    if pooled == 0:
        return None
    correction = float(np.exp(special.gammaln(df / 2) - special.gammaln((df - 1) / 2)) / np.sqrt(df / 2))
    return correction * float(a.mean() - b.mean()) / pooled**0.5


def superiority(a: Float[np.ndarray, "n"], b: Float[np.ndarray, "m"]) -> float:
    """Probability that a score of `a` is higher than one of `b`, ties as a half.

    P(a > b) + ½ P(a = b) = U / (n m) (Vargha & Delaney 2000). It is the AUROC of the score as a detector of
    `a`.

    Args:
        a: Scores of the first group, shape (n,).
        b: Scores of the second group, shape (m,).

    Returns:
        A number in [0, 1]; 1/2 when neither is higher.

    Raises:
        InputError: A group is empty or a score is not finite.

    Example:
        >>> superiority(np.array([1.0, 2.0]), np.array([1.0, 0.0]))
        0.875
    """
    a, b = _two_groups(a, b)
    return _u(a, b) / (len(a) * len(b))


def compare_groups(a: Float[np.ndarray, "n"], b: Float[np.ndarray, "m"], confidence: float = 0.95) -> GroupComparison:
    """Compare two groups of pairs by `welch`, `mann_whitney`, `hedges_g` and `superiority`.

    Args:
        a: Scores of the first group (for example the candidates), one a pair, shape (n,).
        b: Scores of the second group (for example the external pairs), shape (m,).
        confidence: Coverage of the Welch interval of the difference.

    Returns:
        All of them. What is undefined for these groups is None.

    Raises:
        InputError: A group is empty, a score is not finite, or the confidence is not between 0 and 1.

    Example:
        >>> compare_groups(np.array([1.0, 1.0]), np.array([0.0, 0.0])).welch_t is None
        True
    """
    means, ranks = welch(a, b, confidence), mann_whitney(a, b)
    return GroupComparison(*means, *ranks, hedges_g(a, b), superiority(a, b))
