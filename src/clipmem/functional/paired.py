"""Two conditions compared over the same seeds: is one higher, by how much, and how surely.

Training the same recipe with the same seed under both conditions removes what the seed contributes to both, so the
test is on the differences. Use it for means of a whole study (mean CLIPMem, recall), one number a seed and
condition; for groups of pairs within a study use `compare_groups`.

Few seeds decide little: with K seeds the Wilcoxon p-value is at least 2 / 2^K (0.25 for three, 0.0625 for five),
whatever the effect. Read the difference and its interval. What is undefined is None.
"""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from scipy import special, stats

from clipmem.functional.checks import as_finite, check_confidence, check_not_empty, check_same_length


class PairedTest(NamedTuple):
    """Mean difference and interval, paired t test, Wilcoxon's test and effect size; None where undefined."""

    difference: float
    low: float | None
    high: float | None
    t: float | None
    df: int | None
    p: float | None
    wilcoxon_p: float
    effect: float | None


def paired_test(a: Float[np.ndarray, "seed"], b: Float[np.ndarray, "seed"], confidence: float = 0.95) -> PairedTest:
    """Compare two conditions seed by seed.

    With d_k = a_k - b_k over K seeds: t = d̄ / (s_d / sqrt(K)), df = K - 1, interval d̄ ± t_df s_d / sqrt(K);
    Wilcoxon's signed-rank test (zeros left out; exact below 51 seeds without ties); effect g = J(K - 1) d̄ / s_d with
    J(v) = Γ(v/2) / (sqrt(v/2) Γ((v-1)/2)) (Hedges 1981; the difference in its own standard deviations over seeds).

    Args:
        a: Result under the first condition, one a seed, shape (seed,).
        b: Result under the second, the same seeds in the same order, shape (seed,).
        confidence: Coverage of the interval, between 0 and 1.

    Returns:
        All of them. t, df, p and the interval are None with one seed or when all differences are equal; the effect
        also with two seeds (J needs v > 1). The Wilcoxon p is 1 when all differences are 0.

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
    wilcoxon_p = 1.0
    if differences.any():
        signed_rank: Any = stats.wilcoxon(differences[differences != 0])
        wilcoxon_p = float(signed_rank.pvalue)
    if seeds < 2 or differences.min() == differences.max():
        return PairedTest(mean, None, None, None, None, None, wilcoxon_p, None)
    sd, df = float(differences.std(ddof=1)), seeds - 1
    stderr = sd / seeds**0.5
    half = float(stats.t.ppf((1 + confidence) / 2, df)) * stderr
    effect = None
    if df > 1:
        correction = float(np.exp(special.gammaln(df / 2) - special.gammaln((df - 1) / 2)) / np.sqrt(df / 2))
        effect = correction * mean / sd
    t = mean / stderr
    p = float(2 * stats.t.sf(abs(t), df))
    return PairedTest(mean, mean - half, mean + half, t, df, p, wilcoxon_p, effect)
