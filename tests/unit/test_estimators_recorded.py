"""Estimators that read trajectories or half-models as they are."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.reference.loops_trajectory import in_minus_out, mean_margins

from clipmem.base.errors import InputError
from clipmem.functional.resampling import jackknife_models
from clipmem.score.estimators import ESTIMATORS
from clipmem.score.signals import Halves, Signals, Trajectory


def signals(n, **known):
    return Signals([f"{k}" for k in range(n)], [["a"]] * n, np.arange(n), **known)


def halves(seed, n=7, models=4, **changes):
    rng = np.random.default_rng(seed)
    member = np.zeros((models, n), bool)
    for column in range(n):
        member[rng.permutation(models)[: models // 2], column] = True
    return Halves(rng.normal(size=(models, n)), member, **changes)


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 5), st.integers(1, 6))
def test_mean_margin_against_a_loop(seed, epochs, n):
    rng = np.random.default_rng(seed)
    margin = rng.uniform(-2, 2, (epochs, n)).astype(np.float32)
    margin[rng.random((epochs, n)) < 0.3] = np.nan
    margin[0, 0] = 0.25
    found = ESTIMATORS["trajectory"]().estimate(signals(n, trajectory=Trajectory(margin, margin)))
    assert found.score == pytest.approx([-mean for mean in mean_margins(margin.tolist())], abs=1e-6, nan_ok=True)
    assert not found.calibrated
    assert found.stderr is None


@pytest.mark.parametrize("trajectory", [None, Trajectory(*[np.full((2, 3), np.nan, np.float32)] * 2)])
def test_nothing_recorded(trajectory):
    with pytest.raises(InputError) as caught:
        ESTIMATORS["trajectory"]().estimate(signals(3, trajectory=trajectory))
    assert caught.value.what == "trajectory"


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([2, 4, 6]))
def test_raw_difference_against_a_loop(seed, models):
    given_halves = halves(seed, models=models)
    given_halves.member[:, 0] = True
    found = ESTIMATORS["raw"]().estimate(signals(7, halves=[given_halves]))
    score = in_minus_out(given_halves.alignment.tolist(), given_halves.member.tolist())
    assert found.score == pytest.approx(score, abs=1e-12, nan_ok=True)
    assert np.isnan(found.score).tolist() == [True] + [False] * 6
    assert found.calibrated
    if models == 2:  # one model on each side has no spread
        assert found.stderr is None
    else:
        expected = jackknife_models(given_halves.alignment, given_halves.member).stderr
        assert np.array_equal(found.stderr, expected, equal_nan=True)


def test_which_set_of_half_models():
    full, proxy = halves(0), halves(1, models=6, proxy=True)
    one = Halves(full.alignment[:1], full.member[:1])
    raw = ESTIMATORS["raw"]()
    for sets, expected in (([proxy, full], full), ([one, proxy], proxy), ([full, halves(2, models=2)], full)):
        found = raw.estimate(signals(7, halves=sets))
        assert np.array_equal(found.score, raw.estimate(signals(7, halves=[expected])).score)
        assert found.calibrated == (expected is full)


@pytest.mark.parametrize("sets", [[], [Halves(np.zeros((1, 3)), np.ones((1, 3), bool))]])
def test_no_half_models_with_and_without_a_pair(sets):
    with pytest.raises(InputError) as caught:
        ESTIMATORS["raw"]().estimate(signals(3, halves=sets))
    assert caught.value.what == "half-models"
