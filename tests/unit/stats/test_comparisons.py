"""Group comparisons and rankings: agreement with scipy and scikit-learn, edges, errors."""

import inspect

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics

from clipmem.base.errors import InputError
from clipmem.functional import (
    Correlation,
    Welch,
    auroc,
    compare_groups,
    holm,
    paired_test,
    precision_at_n,
    roc_curve,
    spearman,
    superiority,
    top_overlap,
    welch,
)
from clipmem.stats.comparisons import hedges_g

RNG = np.random.default_rng(7)
A, B = RNG.normal(0.4, 1.0, size=23), RNG.normal(0.0, 2.0, size=31)


def test_welch_agrees_with_scipy():
    ours, theirs = welch(A, B, confidence=0.9), stats.ttest_ind(A, B, equal_var=False)
    bounds = theirs.confidence_interval(0.9)
    expected = (A.mean() - B.mean(), bounds.low, bounds.high, theirs.statistic, theirs.df, theirs.pvalue)
    assert ours == pytest.approx(expected, rel=1e-10)


def test_mann_whitney_agrees_with_scipy_and_with_its_mirror():
    a, b = np.round(A), np.round(B)
    theirs, ours = stats.mannwhitneyu(a, b, alternative="two-sided"), compare_groups(a, b)
    assert ours[6:8] == pytest.approx((theirs.statistic, theirs.pvalue), rel=1e-12)
    assert compare_groups(b, a).mannwhitney_u == len(a) * len(b) - ours.mannwhitney_u


def test_hedges_g_is_close_to_the_usual_approximation():
    df = len(A) + len(B) - 2
    pooled = ((len(A) - 1) * A.var(ddof=1) + (len(B) - 1) * B.var(ddof=1)) / df
    approximate = (1 - 3 / (4 * df - 1)) * (A.mean() - B.mean()) / np.sqrt(pooled)
    assert hedges_g(A, B) == pytest.approx(approximate, rel=1e-4)


def test_hedges_g_is_nearly_unbiased_in_small_groups():
    rng = np.random.default_rng(0)
    found = [hedges_g(rng.normal(0.8, 1, size=4), rng.normal(0, 1, size=4)) for _ in range(4000)]
    assert np.mean(found) == pytest.approx(0.8, abs=0.05)  # without the correction: 0.92


def test_compare_groups_holds_the_parts():
    whole = compare_groups(A, B, confidence=0.9)
    assert whole[:6] == welch(A, B, 0.9)
    assert whole[8:] == (hedges_g(A, B), superiority(A, B))
    assert whole.superiority == whole.mannwhitney_u / (len(A) * len(B))
    assert (whole.welch_t, whole.welch_df, whole.welch_p) == welch(A, B)[3:]


def test_constant_groups_are_none_where_undefined():
    result = compare_groups(np.full(3, 0.1), np.full(4, 0.3))
    assert result.difference == pytest.approx(-0.2)
    assert (result.low, result.high, result.welch_t, result.welch_df, result.welch_p) == (None,) * 5
    assert result.hedges_g is None
    assert (result.mannwhitney_u, result.superiority) == (0.0, 0.0)
    assert 0 < result.mannwhitney_p < 1
    same = compare_groups(np.full(3, 0.1), np.full(3, 0.1))
    assert (same.mannwhitney_p, same.superiority) == (1.0, 0.5)


def test_groups_of_one():
    assert welch(np.array([1.0]), np.array([0.0, 2.0])) == Welch(0.0, None, None, None, None, None)
    assert hedges_g(np.array([1.0]), np.array([0.0, 2.0])) is None
    assert hedges_g(np.array([1.0]), np.array([0.0, 2.0, 1.0])) == pytest.approx(0.0)
    assert superiority(np.array([1.0]), np.array([1.0])) == 0.5


def test_one_constant_group_is_fine():
    result = welch(np.full(5, 0.1), B)
    assert result.t == pytest.approx((0.1 - B.mean()) / (B.std(ddof=1) / np.sqrt(len(B))))
    assert result.df == pytest.approx(len(B) - 1)


SCORES = np.round(RNG.normal(size=60), 1)
POSITIVE = RNG.random(60) < 0.3


def test_auroc_and_roc_agree_with_sklearn():
    assert auroc(SCORES, POSITIVE).mean == pytest.approx(metrics.roc_auc_score(POSITIVE, SCORES), abs=1e-14)
    fpr, tpr, _ = metrics.roc_curve(POSITIVE, SCORES, drop_intermediate=False)
    curve = roc_curve(SCORES, POSITIVE)
    assert np.allclose(curve.fpr, fpr, rtol=0, atol=1e-15)
    assert np.allclose(curve.tpr, tpr, rtol=0, atol=1e-15)
    assert np.trapezoid(curve.tpr, curve.fpr) == pytest.approx(auroc(SCORES, POSITIVE).mean, abs=1e-14)


def test_auroc_interval_covers():
    rng = np.random.default_rng(0)
    positive, covered = np.arange(120) < 30, 0
    truth = stats.norm.cdf(1.2 / np.sqrt(2))
    for _ in range(1000):
        scores = rng.normal(size=120) + 1.2 * positive
        interval = auroc(scores, positive)
        covered += interval.low <= truth <= interval.high
    assert 930 <= covered <= 970


@pytest.mark.parametrize(("sign", "area"), [(1.0, 1.0), (-1.0, 0.0)])
def test_perfect_separation_keeps_an_open_side(sign, area):
    positive = np.arange(25) < 10
    interval = auroc(sign * positive.astype(float), positive)
    bound = 0.025 ** (1 / 10)  # Clopper and Pearson for 10 of 10
    assert interval[:3] == pytest.approx((1.0, bound, 1.0) if area else (0.0, 0.0, 1 - bound), abs=1e-12)


def test_auroc_of_constant_scores_is_wide():
    interval = auroc(np.ones(40), np.arange(40) < 20)
    assert interval.mean == 0.5
    assert interval.low < 0.3
    assert interval.high > 0.7


def test_auroc_with_one_positive():
    interval = auroc(np.array([0.2, 0.1, 0.3, 0.4]), np.array([True, False, False, False]))
    assert interval.mean == pytest.approx(1 / 3)
    assert interval.low < 0.05
    assert interval.high > 0.95


def test_auroc_with_one_other():
    one_positive = auroc(np.array([0.2, 0.1, 0.3, 0.4]), np.array([True, False, False, False]))
    one_other = auroc(-np.array([0.2, 0.1, 0.3, 0.4]), np.array([False, True, True, True]))
    assert one_other == pytest.approx(one_positive)


def test_precision_shares_a_tied_cut():
    scores, positive = np.array([3.0, 1.0, 1.0, 1.0, 0.0]), np.array([True, True, False, False, False])
    assert precision_at_n(scores, positive) == pytest.approx((1 + 1 / 3) / 2)
    assert precision_at_n(scores, positive, 1) == 1.0
    assert precision_at_n(scores, positive, 5) == pytest.approx(0.4)
    assert precision_at_n(scores[::-1], positive[::-1]) == precision_at_n(scores, positive)


def test_spearman_agrees_with_scipy():
    a, b = np.round(A, 1), np.round(A + B[:23], 1)
    assert spearman(a, b).spearman == pytest.approx(stats.spearmanr(a, b).statistic, abs=1e-14)


def test_spearman_interval_covers():
    rng = np.random.default_rng(0)
    truth, covered = 6 / np.pi * np.arcsin(0.6 / 2), 0  # Spearman's rho of a normal pair with correlation 0.6
    for _ in range(1000):
        a = rng.normal(size=60)
        interval = spearman(a, 0.6 * a + 0.8 * rng.normal(size=60))
        covered += interval.low <= truth <= interval.high
    assert 930 <= covered <= 970


def test_spearman_interval_by_hand():
    a, b = np.array([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]), np.array([2.0, 1.0, 4.0, 3.0, 6.0, 5.0])
    rho = 1 - 6 * 6 / (6 * 35)  # six rank differences of one
    half = 1.959963984540054 * np.sqrt((1 + rho**2 / 2) / 3)
    expected = (rho, np.tanh(np.arctanh(rho) - half), np.tanh(np.arctanh(rho) + half))
    assert spearman(a, b) == pytest.approx(expected, rel=1e-12)


def test_spearman_edges():
    ramp = np.arange(10.0)
    rising, falling = spearman(ramp, ramp**3), spearman(ramp, -ramp)
    assert (rising.spearman, rising.high) == (1.0, 1.0)
    assert 0.9 < rising.low < 1
    assert falling == pytest.approx((-1.0, -1.0, -rising.low))
    assert spearman(ramp, np.ones(10)) == Correlation(None, None, None)
    assert spearman(np.ones(1), np.ones(1)) == Correlation(None, None, None)
    assert spearman(ramp[:3], ramp[:3]) == Correlation(1.0, None, None)
    long = np.arange(1_000_000.0)  # the next value of rho rounds to 1 here
    assert spearman(long, long).low < 1


def test_top_overlap():
    ramp = np.arange(20.0)
    assert top_overlap(ramp, ramp) == 1.0
    assert top_overlap(ramp, -ramp) == 0.0
    assert top_overlap(ramp, -ramp, fraction=1.0) == 1.0
    assert top_overlap(np.array([1.0]), np.array([5.0])) == 1.0
    assert top_overlap(np.ones(20), ramp, fraction=0.25) == pytest.approx(0.25)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: welch(np.empty(0), B),
            "a: got no value",
        ),
        (
            lambda: superiority(A, np.array([np.nan])),
            "b: got 1 of 1 values not finite, the first at index [0]",
        ),
        (
            lambda: compare_groups(A, B, confidence=0.0),
            "confidence: got 0.0",
        ),
        (
            lambda: auroc(A, np.zeros(23, dtype=bool)),
            "positive: got 0 of 23 pairs",
        ),
        (
            lambda: inspect.unwrap(roc_curve)(A, np.zeros(3, dtype=bool)),
            "scores and positive: got 23 and 3 values",
        ),
        (
            lambda: precision_at_n(SCORES, POSITIVE, 61),
            "count: got 61",
        ),
        (
            lambda: top_overlap(A, A, fraction=0.0),
            "fraction: got 0.0",
        ),
    ],
)
def test_errors(call, message):
    with pytest.raises(InputError) as error:
        call()
    assert f"{error.value.what}: got {error.value.got}" == message


def test_the_rank_test_leaves_out_zeros_and_keeps_signs():
    differences = np.array([1.0, 2.0, -3.0, 0.0, 5.0, -1.5])
    found = paired_test(differences, np.zeros(6))
    assert found.wilcoxon_p == stats.wilcoxon(differences[[0, 1, 2, 4, 5]]).pvalue


@pytest.mark.parametrize("wrong", [-0.5, 1.5])
def test_holm_refuses_what_is_no_p_value(wrong):
    with pytest.raises(InputError) as error:
        holm(np.array([0.1, wrong]))
    assert error.value.got == f"{wrong:g} at index 1"
