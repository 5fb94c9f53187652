"""Intervals over seeds and pairs: coverage, edges, errors."""

import inspect

import numpy as np
import pytest
from scipy import special, stats

from clipmem.base.errors import InputError
from clipmem.functional import (
    Interval,
    centered_mean,
    control_shift,
    crossed_mean,
    half_difference,
    noise_floor,
    seed_interval,
    seed_noise,
)
from clipmem.stats.intervals import VariancePrior, variance_prior


def draw_differences(rng, *, seeds, n, prior_df):
    """Score differences around 0 whose variances come from an inverse-gamma prior of scale 0.04."""
    variances = 0.04 * prior_df / rng.chisquare(prior_df, size=n)
    return rng.normal(size=(seeds, n)) * np.sqrt(variances)


@pytest.mark.parametrize("seeds", [2, 3])
@pytest.mark.parametrize("prior_df", [3.0, 8.0])
def test_seed_interval_covers(seeds, prior_df):
    rng = np.random.default_rng(seeds)
    interval = seed_interval(draw_differences(rng, seeds=seeds, n=20_000, prior_df=prior_df))
    covered = np.mean((interval.low <= 0) & (interval.high >= 0))
    assert 0.93 <= covered <= 0.97


def test_seed_interval_is_narrower_than_a_plain_t():
    differences = draw_differences(np.random.default_rng(0), seeds=2, n=5000, prior_df=8.0)
    plain = stats.t.ppf(0.975, 1) * differences.std(axis=0, ddof=1) / np.sqrt(2)
    moderated = seed_interval(differences)
    assert np.mean(moderated.high - moderated.low) / 2 < 0.5 * np.mean(plain)


def test_seed_interval_of_equal_variances_is_normal():
    differences = np.random.default_rng(0).normal(size=(3, 50_000))
    interval = seed_interval(differences)
    covered = np.mean((interval.low <= 0) & (interval.high >= 0))
    assert abs(covered - 0.95) < 0.005
    assert np.allclose(interval.stderr, 1 / np.sqrt(3), rtol=0.02)


def test_one_seed_gives_nan():
    interval = seed_interval(np.array([[0.1, 0.2]]))
    assert all(np.isnan(part).all() and part.shape == (2,) for part in interval[:3])


def test_identical_seeds_give_zero_width_not_nan():
    row = np.array([0.1, 0.7, -0.3])
    interval = seed_interval(np.stack([row, row, row]))
    assert interval.stderr.tolist() == [0.0, 0.0, 0.0]
    assert np.allclose(interval.low, row, rtol=0, atol=1e-15)
    assert np.array_equal(interval.low, interval.high)


@pytest.mark.parametrize("zeros", [1, 6, 9])
def test_some_zero_variances_are_shrunk_to_the_others(zeros):
    differences = np.random.default_rng(1).normal(size=(2, 10))
    differences[:, :zeros] = 0.1
    interval = seed_interval(differences)
    assert all(np.isfinite(part).all() for part in interval[:3])
    assert (interval.stderr > 0).all()


def test_one_pair_falls_back_to_the_plain_t():
    values = np.array([0.1, 0.4, 0.3])
    interval = seed_interval(values[:, None])
    stderr = values.std(ddof=1) / np.sqrt(3)
    low, high = stats.t.interval(0.95, 2, loc=values.mean(), scale=stderr)
    assert np.allclose([interval.stderr[0], interval.low[0], interval.high[0]], [stderr, low, high], rtol=1e-12)


def test_two_pairs_have_no_more_degrees_of_freedom_than_their_data():
    interval = seed_interval(np.array([[0.0, 5.0], [2.0, 7.0]]))  # one common variance, 2; an infinite prior
    assert interval.stderr == pytest.approx([1.0, 1.0])
    assert interval.high == pytest.approx(np.array([1.0, 6.0]) + stats.t.ppf(0.975, 2))


def test_seed_interval_of_no_pairs():
    assert seed_interval(np.empty((3, 0))).low.shape == (0,)


def test_confidence_widens():
    differences = np.random.default_rng(0).normal(size=(3, 5))
    narrow, wide = seed_interval(differences, 0.5), seed_interval(differences, 0.99)
    assert ((wide.high - wide.low) > (narrow.high - narrow.low)).all()


def test_variance_prior_finds_what_made_the_variances():
    rng = np.random.default_rng(3)
    true_df, scale, df = 6.0, 0.25, 2
    variances = scale * true_df / rng.chisquare(true_df, size=200_000) * rng.chisquare(df, size=200_000) / df
    prior = variance_prior(variances, np.full(len(variances), float(df)))
    assert abs(prior.df - true_df) < 0.3
    assert abs(prior.variance - scale) < 0.005


def test_variance_prior_solves_the_moment_equations():
    variances, df = np.array([0.1, 4.0, 0.02, 1.0, 9.0]), 3
    prior, logs = variance_prior(variances, np.full(5, float(df))), np.log(np.array([0.1, 4.0, 0.02, 1.0, 9.0]))
    spread = special.polygamma(1, df / 2) + special.polygamma(1, prior.df / 2)
    mean = (
        np.log(prior.variance)
        + (special.digamma(df / 2) - np.log(df / 2))
        - (special.digamma(prior.df / 2) - np.log(prior.df / 2))
    )
    assert np.isclose(logs.var(ddof=1), spread, rtol=1e-8)
    assert np.isclose(logs.mean(), mean, rtol=1e-8)


def test_variance_prior_edges():
    def prior_of(variances, df):
        return variance_prior(np.array(variances), np.full(len(variances), float(df)))

    assert prior_of([1.0], 2) == VariancePrior(0.0, 0.0)
    assert prior_of([0.0] * 4, 2) == VariancePrior(0.0, 0.0)
    assert prior_of([2.0, 4.0], 100).df == pytest.approx(8.4, rel=0.2)
    assert prior_of([3.0, 3.0, 3.0], 2) == VariancePrior(np.inf, 3.0)


def test_a_mean_over_pairs_has_its_t_interval():
    values = np.random.default_rng(0).normal(size=(1, 40))
    found = crossed_mean(values, np.arange(40))
    expected = stats.t.interval(0.95, 39, loc=values.mean(), scale=values.std(ddof=1) / np.sqrt(40))
    assert (found.low, found.high) == pytest.approx(expected)
    assert found.over == "pairs"


def test_groups_count_once():
    values = np.repeat(np.random.default_rng(0).normal(size=40), 25)[None]
    clustered, single = crossed_mean(values, np.repeat(np.arange(40), 25)), crossed_mean(values[:, ::25], np.arange(40))
    assert clustered == pytest.approx(single)


def test_a_mean_that_differs_by_seed_alone_has_the_t_interval_over_seeds():
    values = np.array([0.0, 1.0, 2.0, 3.0])[:, None] + np.zeros((1, 50))
    found = crossed_mean(values, np.arange(50))
    assert (found.low, found.high) == pytest.approx(
        stats.t.interval(0.95, 3, loc=1.5, scale=np.std(range(4), ddof=1) / 2)
    )
    assert found.over == "pairs and seeds"


def test_two_seeds_give_an_interval_over_pairs_of_their_mean():
    values = np.random.default_rng(0).normal(size=(2, 30)) + np.array([[0.0], [9.0]])
    found = crossed_mean(values, np.arange(30))
    assert found == pytest.approx(crossed_mean(values.mean(axis=0)[None], np.arange(30)))
    assert found.over == "pairs"


def test_seeds_that_agree_leave_the_interval_over_pairs():
    row = np.random.default_rng(0).normal(size=(1, 30))
    found = crossed_mean(np.repeat(row, 3, axis=0), np.arange(30))
    assert found[:3] == pytest.approx(crossed_mean(row, np.arange(30))[:3])


def test_names_of_groups_do_not_matter():
    values, groups = np.random.default_rng(0).normal(size=(3, 60)), np.arange(60) // 2
    assert crossed_mean(values, groups * 7 - 3) == crossed_mean(values, groups)


def test_equal_values_have_no_width():
    assert crossed_mean(np.full((3, 4), 0.25), np.arange(4)) == Interval(0.25, 0.25, 0.25, "pairs and seeds")


def test_one_group_has_no_interval():
    assert crossed_mean(np.array([[1.0, 2.0]]), np.array([4, 4])) == Interval(1.5, None, None)


def test_the_half_difference_is_free_of_what_shifts_all_pairs_of_a_seed():
    rng = np.random.default_rng(0)
    own, others, shift = rng.normal(0.4, 0.1, (2, 50)), rng.normal(-0.4, 0.1, (2, 50)), np.array([[0.2], [-0.3]])
    groups = np.arange(50), np.arange(50, 100)
    plain, shifted = half_difference(own, others, *groups), half_difference(own + shift, others + shift, *groups)
    assert shifted[:3] == pytest.approx(plain[:3])


def test_one_seed_of_two_samples_has_welchs_interval():
    rng = np.random.default_rng(0)
    own, others = rng.normal(0.4, 0.3, (1, 4)), rng.normal(-0.4, 0.1, (1, 30))
    found = half_difference(own, others, np.arange(4), np.arange(4, 34), confidence=0.9)
    welch = stats.ttest_ind(own[0], others[0], equal_var=False).confidence_interval(0.9)
    assert found[1:3] == pytest.approx((welch.low / 2, welch.high / 2), rel=1e-12)


@pytest.mark.parametrize("groups", [(np.zeros(3, dtype=int), np.array([1, 2])), (np.arange(3), np.array([9, 9]))])
def test_one_group_in_a_sample_has_no_interval(groups):
    own, others = np.array([[1.0, 2.0, 3.0]]), np.array([[-1.0, -3.0]])
    assert half_difference(own, others, *groups) == Interval(2.0, None, None)
    assert centered_mean(own, others, *groups) == Interval(4.0, None, None)


def test_two_samples_of_equal_values_have_no_width():
    found = half_difference(np.ones((2, 3)), np.zeros((2, 4)), np.arange(3), np.arange(3, 7))
    assert found == Interval(0.5, 0.5, 0.5, "pairs and seeds")


def test_one_group_of_control_pairs_gives_a_shift_without_error():
    found = control_shift(np.array([[0.25, 0.75]]), np.array([3, 3]))
    assert (found.mean, found.low, found.high, found.stderr) == (0.5, None, None, None)


def test_seed_noise_by_hand():
    noise = seed_noise(np.array([[0.5, 0.2], [0.4, 0.4], [0.1, 0.1]]), np.array([0, 1]))
    differences = np.array([[0.1, -0.2], [0.4, 0.1], [0.3, 0.3]])
    assert noise is not None
    assert noise.seed_pairs == 3
    assert noise.mean == pytest.approx(differences.mean(), abs=1e-15)
    assert noise.mean_abs == pytest.approx(np.abs(differences).mean(), abs=1e-15)
    assert noise.sd == pytest.approx(np.sqrt(differences.var(axis=1).mean()), abs=1e-15)
    assert noise.low <= noise.mean <= noise.high


def test_seed_noise_signs_follow_the_order_of_the_seeds():
    target, groups = np.random.default_rng(0).normal(size=(3, 30)), np.arange(30)
    forward, backward = seed_noise(target, groups), seed_noise(target[::-1], groups)
    assert forward is not None
    assert backward is not None
    assert backward.mean == pytest.approx(-forward.mean, abs=1e-14)
    assert backward.sd == pytest.approx(forward.sd, rel=1e-12)
    assert backward.mean_abs == pytest.approx(forward.mean_abs, rel=1e-12)


def test_one_seed_has_no_seed_noise():
    assert seed_noise(np.array([[0.5, 0.2]]), np.array([0, 1])) is None


def test_noise_floor_by_hand():
    control = np.array([[0.0, 0.1, 0.2, 0.3, 2.0], [0.0, -0.1, 0.0, 0.1, -1.0]])
    floor = noise_floor(control, confidence=2 / 3)  # the 4th of 5
    center = (0.2 - 0.1 / 3) / 2  # the mean of the middle three of each seed
    scores = control.mean(axis=0)
    assert floor is not None
    assert (floor.pairs, floor.confidence) == (5, 2 / 3)
    assert floor.center == pytest.approx(center, abs=1e-15)
    assert floor.half_width == pytest.approx(np.sort(np.abs(scores - center))[3], abs=1e-15)


@pytest.mark.parametrize(("confidence", "least"), [(0.5, 1), (0.9, 9), (0.95, 19), (0.99, 99)])
def test_few_held_out_pairs_have_no_noise_floor(confidence, least):
    values = np.random.default_rng(0).normal(size=(1, least))
    floor = noise_floor(values, confidence=confidence)
    assert floor is not None
    assert floor.half_width == np.abs(values - floor.center).max()
    if least > 1:
        assert noise_floor(values[:, 1:], confidence=confidence) is None


@pytest.mark.slow
@pytest.mark.parametrize("pairs", [19, 60, 400])
@pytest.mark.parametrize("shift", [0.0, -0.7])
def test_a_further_held_out_pair_is_within_the_noise_floor(pairs, shift):
    rng = np.random.default_rng(pairs)
    inside = []
    for _ in range(2000):
        *control, further = rng.standard_t(3, size=pairs + 1) + shift
        floor = noise_floor(np.array([control]))
        inside.append(abs(further - floor.center) <= floor.half_width)
    assert abs(np.mean(inside) - 0.95) < 0.015  # three standard errors, and the error of the center


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: seed_interval(np.array([[0.0, np.nan], [np.inf, 0.0]])),
            "differences: got 2 of 4 values not finite, the first at index [0, 1]",
        ),
        (
            lambda: seed_interval(np.empty((0, 3))),
            "differences: got no seed",
        ),
        (
            lambda: seed_interval(np.zeros((2, 3)), confidence=1.0),
            "confidence: got 1.0",
        ),
        (
            lambda: crossed_mean(np.empty((2, 0)), np.empty(0, dtype=int)),
            "values: got no value",
        ),
        (
            lambda: inspect.unwrap(crossed_mean)(np.zeros((1, 3)), np.zeros(2, dtype=int)),
            "values and groups: got 3 and 2 values",
        ),
        (
            lambda: control_shift(np.array([[0.0, np.nan]]), np.arange(2)),
            "values: got 1 of 2 values not finite, the first at index [0, 1]",
        ),
        (
            lambda: centered_mean(np.zeros((1, 3)), np.empty((1, 0)), np.arange(3), np.empty(0, dtype=int)),
            "values: got no value",
        ),
        (
            lambda: crossed_mean(np.zeros((1, 3)), np.arange(3), confidence=0.0),
            "confidence: got 0.0",
        ),
    ],
)
def test_errors(call, message):
    with pytest.raises(InputError) as error:
        call()
    assert f"{error.value.what}: got {error.value.got}" == message
