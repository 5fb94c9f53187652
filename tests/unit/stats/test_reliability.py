"""Tests of the agreement with a truth that is only seen through noise."""

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings
from scipy.stats import spearmanr

from clipmem.base.errors import InputError
from clipmem.stats.reliability import (
    Estimated,
    agreement,
    correlations,
    halved,
    in_blocks,
    noise_of,
    own_weight,
    reliability,
    share_of_truth,
)
from tests.reference import loops_reliability as loops


def simulated(seed: int, models: int, *, noise: float, error: float, n: int = 1500):
    """Return the truth, noisy effects, and a prediction of the truth with an error of its own."""
    stream = np.random.default_rng(seed)
    truth = stream.gamma(2.0, size=n)
    effect = truth + noise * stream.normal(size=(models, n))
    return truth, effect, truth + error * stream.normal(size=n)


@given(seed=st.integers(0, 100), models=st.integers(2, 4), own=st.sampled_from([0.0, 0.3, 1.0]))
@settings(max_examples=25)
def test_agreement_and_noise_equal_the_loops(seed: int, models: int, own: float) -> None:
    _, effect, predicted = simulated(seed, models, noise=0.7, error=0.5, n=25)
    assert noise_of(effect) == pytest.approx(loops.noise(effect))
    fitted = predicted + 0.2 * np.random.default_rng(seed).normal(size=(models, 25))
    for left_out in (None, fitted):
        found = agreement(effect, Estimated(predicted, own=own, left_out=left_out), np.arange(25), draws=2)
        if found is not None:
            expected = loops.agreement(effect, predicted, own, left_out)
            assert found.value == pytest.approx(min(1.0, max(-1.0, expected)))


def test_fits_may_leave_out_blocks() -> None:
    """Five pairs of shadow models in blocks of two, two and one; the blocks give their share of the truth."""
    _, effect, predicted = simulated(0, 5, noise=2.0, error=0.5, n=40)
    blocks = np.stack([effect[:2].mean(axis=0), effect[2:4].mean(axis=0), effect[4]])
    np.testing.assert_allclose(in_blocks(effect, 3), blocks)
    assert (in_blocks(effect, 8) == effect).all()
    fitted = predicted + 0.2 * np.random.default_rng(0).normal(size=(3, 40))
    judged, naive = (
        agreement(effect, Estimated(predicted, left_out=fits), np.arange(40), draws=2).value for fits in (fitted, None)
    )
    assert judged == pytest.approx(naive * loops.share_of_truth(blocks, fitted))


def fitted_to(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Ridge regression on features, cross-fitted in five folds."""
    predicted = np.empty(len(y))
    for fold in range(5):
        test = np.arange(len(y)) % 5 == fold
        known, mean = x[~test], y[~test].mean()
        weights = np.linalg.solve(known.T @ known + 50 * np.eye(x.shape[1]), known.T @ (y[~test] - mean))
        predicted[test] = mean + x[test] @ weights
    return predicted


@pytest.mark.slow
@pytest.mark.parametrize(("models", "noise"), [(2, 1.5), (2, 2.5), (4, 1.5), (4, 2.5), (16, 5.0)])
@pytest.mark.parametrize("shared", [0.0, 0.7])
def test_a_fit_to_the_effects_is_not_judged_by_their_noise(models: int, noise: float, shared: float) -> None:
    """The noise is partly one of features, in which pairs of shadow models differ; a fit of D takes it for truth."""
    off: list[tuple[float, float]] = []
    n = 2000
    for seed in range(60):
        stream = np.random.default_rng(seed)
        x, of_truth = stream.normal(size=(n, 20)), stream.normal(size=20)
        truth = x @ of_truth / 20**0.5 + stream.normal(size=n)
        alike = x @ stream.normal(size=(20, models)) / 20**0.5
        effect = truth + shared * alike.T + noise * stream.normal(size=(models, n)) + np.arange(models)[:, None]
        mean, found = effect.mean(axis=0), noise_of(effect)
        predicted = fitted_to(x, mean)
        blocks = in_blocks(effect, 8)
        left_out = np.stack([fitted_to(x, np.delete(blocks, k, axis=0).mean(axis=0)) for k in range(len(blocks))])
        own = own_weight(mean, predicted, found.noise)
        true = spearmanr(predicted + own * (mean - predicted), truth)[0]
        judgments = [Estimated(predicted, own=own, left_out=fits) for fits in (left_out, None)]
        printed = [agreement(effect, estimated, np.arange(n), draws=2) for estimated in judgments]
        off.append(tuple(one.value - true for one in printed))
    judged, naive = np.mean(off, axis=0)
    assert abs(judged) < 0.02
    assert naive == pytest.approx(judged, abs=0.005) if not shared else naive > judged + 0.08 / max(4, models)


def test_common_shifts_are_no_noise() -> None:
    """Shadow models of one pair may differ in all pairs alike; and K and n are few, but nothing is lost by that."""
    noise = []
    for seed in range(400):
        effect = np.random.default_rng(seed).normal(size=(2, 6))
        noise.append(noise_of(effect).noise)
        assert noise_of(effect + np.array([[0.0], [9.0]])).noise == pytest.approx(noise[-1])
    assert np.mean(noise) == pytest.approx(0.5, abs=0.05)


def test_the_share_of_the_truth() -> None:
    """All if the fits agree as well with what they were not fitted on; as much less as they agree less."""
    effect = np.array([[0.0, 1.0, 2.0, 3.0], [0.0, 1.0, 2.0, 3.0]])
    assert share_of_truth(effect, effect) == pytest.approx(1)
    # p_-1 is all of D_2, of which half is noise: 2 (1 / 2) / (1 + 1 / 2)
    first, second = np.array([1.0, -1.0, 1.0, -1.0]), np.array([1.0, 1.0, -1.0, -1.0])
    third = np.array([1.0, -1.0, -1.0, 1.0])
    effect = np.stack([first + second, first + third])
    assert share_of_truth(effect, effect[::-1]) == pytest.approx(2 / 3)
    assert share_of_truth(effect, -effect) == 1  # nothing was fitted


@given(seed=st.integers(0, 100), n=st.integers(3, 12))
@settings(max_examples=25)
def test_weighted_correlation_equals_repeated_pairs(seed: int, n: int) -> None:
    stream = np.random.default_rng(seed)
    a, b, times = stream.normal(size=n), stream.normal(size=n), stream.integers(1, 4, size=n).astype(float)
    assert correlations(a[None], b[None], times[None])[0, 0] == pytest.approx(
        loops.correlation(list(a), list(b), list(times))
    )
    assert correlations(a[None], np.ones((1, n)), times[None])[0, 0] == 0


@pytest.mark.parametrize("noise", [0.5, 1.5, 3.0])
def test_it_is_the_agreement_with_the_truth_that_nobody_sees(noise: float) -> None:
    """Of the prediction, the raw difference, and both with the weight of the own difference, in 20 of 20 draws."""
    off: list[float] = []
    for seed in range(20):
        models, error = (2, 4, 8)[seed % 3], (0.3, 1.5)[seed % 2]
        truth, effect, predicted = simulated(seed, models, noise=noise, error=error, n=4000)
        found, mean = noise_of(effect), effect.mean(axis=0)
        for weight in (0.0, own_weight(mean, predicted, found.noise), 1.0):
            score = predicted + weight * (mean - predicted)
            printed = agreement(effect, Estimated(predicted, own=weight), np.arange(len(truth)), draws=2)
            assert printed is not None
            off.append(abs(printed.value - spearmanr(score, truth)[0]))
    assert np.mean(np.array(off) < 0.08) >= 0.9
    assert np.median(off) < 0.05


def test_the_own_weight_lowers_the_error() -> None:
    """It is near the weight with the smallest squared error, and 0 where the residual is all noise."""
    truth, effect, predicted = simulated(0, 4, noise=1.5, error=1.0, n=20_000)
    mean, found = effect.mean(axis=0), noise_of(effect)
    weights = np.linspace(0, 1, 101)
    errors = [((predicted + w * (mean - predicted) - truth) ** 2).mean() for w in weights]
    assert own_weight(mean, predicted, found.noise) == pytest.approx(weights[int(np.argmin(errors))], abs=0.03)
    assert own_weight(mean, truth, found.noise) < 0.05


def test_nothing_is_said_where_shadow_models_do_not_agree() -> None:
    """Effects that are all noise have no reliability, and no agreement is printed."""
    stream = np.random.default_rng(3)
    effect = stream.normal(size=(2, 400))
    effect[1] -= effect[0]  # opposite, so that the estimate is below 0 for certain
    assert agreement(effect, Estimated(stream.normal(size=400)), np.arange(400)) is None
    assert noise_of(effect).reliability == 0


def test_spearman_brown() -> None:
    """The reliability of the mean of eight follows from that of two."""
    _, effect, _ = simulated(5, 8, noise=1.0, error=1.0)
    ones = np.ones((1, len(effect[0])))
    two, eight = reliability(effect[:2], ones)[0], reliability(effect, ones)[0]
    single = two / (2 - two)
    assert eight == pytest.approx(8 * single / (1 + 7 * single), abs=0.02)


def test_few_large_effects_do_not_make_ranks_look_reliable() -> None:
    """Rankings by single D agree on the few, as on swapped captions, more than their noise elsewhere allows."""
    off: list[tuple[float, float]] = []
    for seed in range(20):
        stream = np.random.default_rng(seed)
        truth = 0.3 * stream.normal(size=2000) + 4 * (np.arange(2000) < 300)
        score, effect = truth + 0.2 * stream.normal(size=2000), truth + stream.normal(size=(8, 2000))
        ones = np.ones((1, 2000))
        c, shared = halved(effect, score, ones)
        single = np.mean([reliability(effect[[k, k + 4]], ones)[0] for k in range(4)])
        earlier = spearmanr(score, effect.mean(axis=0))[0] / (8 * single / (2 + 6 * single)) ** 0.5
        true = spearmanr(score, truth)[0]
        off.append((shared[0] / c[0] ** 0.5 - true, earlier - true))
    halves, singles = np.mean(off, axis=0)
    assert abs(halves) < 0.04
    assert singles < halves - 0.05


@pytest.mark.parametrize("shape", [(1, 10), (3, 1)])
def test_two_of_each_are_needed(shape: tuple[int, int]) -> None:
    with pytest.raises(InputError) as error:
        noise_of(np.zeros(shape))
    assert error.value.what == "effects"
    assert f"{shape[0]} of {shape[1]}" in error.value.got
