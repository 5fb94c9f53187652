"""Group comparisons against scipy, and verdicts on claims: edges, errors."""

import inspect
import math

import numpy as np
import pytest
from scipy import stats

from clipmem.base.errors import InputError
from clipmem.functional import (
    Claim,
    Welch,
    auroc,
    compare_groups,
    holm,
    paired_test,
    precision_at_n,
    roc_curve,
    superiority,
    top_overlap,
    verdict,
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


@pytest.mark.parametrize(("a", "b"), [([0.4, 0.3], [0.3, 0.2]), ([0.5, 0.4, 0.3], [0.4, 0.3, 0.2])])
def test_differences_that_are_equal_but_for_rounding_have_no_spread(a, b):
    assert np.ptp(np.subtract(a, b)) > 0
    found = paired_test(np.array(a), np.array(b))
    assert found.difference == pytest.approx(0.1)
    assert (found.low, found.high, found.p, found.effect) == (None,) * 4


@pytest.mark.parametrize("wrong", [-0.5, 1.5])
def test_holm_refuses_what_is_no_p_value(wrong):
    with pytest.raises(InputError) as error:
        holm(np.array([0.1, wrong]))
    assert error.value.got == f"{wrong:g} at index 1"


CASES = [
    # interval, claim, answer
    ((0.1, 0.3), Claim("above"), "yes"),
    ((-0.3, -0.1), Claim("above"), "no"),
    ((-0.1, 0.3), Claim("above"), "inconclusive"),
    ((0.0, 0.3), Claim("above"), "inconclusive"),  # 0 is not excluded
    ((-0.3, 0.0), Claim("above"), "no"),  # nothing above 0 is left
    ((-0.3, -0.1), Claim("below"), "yes"),
    ((0.1, 0.3), Claim("below"), "no"),
    ((0.0, 0.0), Claim("above"), "no"),
    # the claimed side is shown: its size does not matter
    ((0.001, 0.002), Claim("above", 0.5), "yes"),
    # neither side is shown, and the claimed size is out of reach
    ((-0.01, 0.02), Claim("above", 0.05), "no"),
    ((-0.02, 0.01), Claim("below", 0.05), "no"),
    ((-0.01, 0.05), Claim("above", 0.05), "inconclusive"),
    ((-0.04, 0.04), Claim("zero", 0.05), "yes"),
    ((0.05, 0.1), Claim("zero", 0.05), "no"),
    ((-0.1, -0.05), Claim("zero", 0.05), "no"),
    ((0.04, 0.06), Claim("zero", 0.05), "inconclusive"),
    ((-0.1, 0.1), Claim("zero", 0.05), "inconclusive"),
    ((None, None), Claim("above"), "inconclusive"),
    ((None, None), Claim("zero", 0.05), "inconclusive"),
    ((0.1, None), Claim("above"), "inconclusive"),
]


@pytest.mark.parametrize(("ends", "claim", "answer"), CASES)
def test_every_case(ends, claim, answer):
    assert verdict(*ends, claim) == answer


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((0.3, 0.1, Claim("above")), "interval: got [0.3, 0.1]"),
        ((math.nan, 0.1, Claim("above")), "low: got nan"),
        (
            (0.0, 0.1, Claim("zero")),
            "size of the claim: got 0 with side 'zero'",
        ),
        (
            (0.0, 0.1, Claim("below", -0.2)),
            "size of the claim: got -0.2 with side 'below'",
        ),
        (
            (0.0, 0.1, Claim("up")),  # pyright: ignore[reportArgumentType]
            "side of the claim: got 'up'",
        ),
    ],
)
def test_errors_of_a_verdict(arguments, text):
    with pytest.raises(InputError) as error:
        verdict(*arguments)
    assert f"{error.value.what}: got {error.value.got}" == text
