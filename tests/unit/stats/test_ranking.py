"""AUROC, precision and agreement of rankings against scikit-learn and scipy: coverage, edges."""

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics

from clipmem.functional import (
    Correlation,
    auroc,
    precision_at_n,
    roc_curve,
    spearman,
    top_overlap,
)
from tests.unit.stats.test_comparisons import POSITIVE, SCORES, A, B


def test_auroc_and_roc_agree_with_sklearn():
    assert auroc(SCORES, POSITIVE).mean == pytest.approx(metrics.roc_auc_score(POSITIVE, SCORES), abs=1e-14)
    fpr, tpr, _ = metrics.roc_curve(POSITIVE, SCORES, drop_intermediate=False)
    curve = roc_curve(SCORES, POSITIVE)
    assert np.allclose(curve.fpr, fpr, rtol=0, atol=1e-15)
    assert np.allclose(curve.tpr, tpr, rtol=0, atol=1e-15)
    assert np.trapezoid(curve.tpr, curve.fpr) == pytest.approx(auroc(SCORES, POSITIVE).mean, abs=1e-14)


@pytest.mark.slow
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


@pytest.mark.slow
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
