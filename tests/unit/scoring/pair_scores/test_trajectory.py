"""Pair scores that read trajectories as they are."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipmem.base.errors import InputError
from clipmem.models.signals import Signals, Trajectory
from clipmem.scoring.pair_scores import PAIR_SCORES
from tests.reference.loops_trajectory import mean_margins, rises


def signals(n, **known):
    return Signals([f"{k}" for k in range(n)], [["a"]] * n, np.arange(n), **known)


@given(st.integers(0, 2**32 - 1), st.integers(1, 5), st.integers(1, 6))
def test_mean_margin_against_a_loop(seed, epochs, n):
    rng = np.random.default_rng(seed)
    margin = rng.uniform(-2, 2, (epochs, n)).astype(np.float32)
    margin[rng.random((epochs, n)) < 0.3] = np.nan
    margin[0, 0] = 0.25
    found = PAIR_SCORES["margin"]().estimate(signals(n, trajectory=Trajectory(margin, margin)))
    assert found.score == pytest.approx([-mean for mean in mean_margins(margin.tolist())], abs=1e-6, nan_ok=True)
    assert not found.calibrated
    assert found.stderr is None


@given(st.integers(0, 2**32 - 1), st.integers(1, 17), st.integers(1, 6))
def test_rise_of_similarity_against_a_loop(seed, epochs, n):
    rng = np.random.default_rng(seed)
    similarity = rng.uniform(-1, 1, (epochs, n)).astype(np.float32)
    similarity[rng.random((epochs, n)) < 0.2] = np.nan
    found = PAIR_SCORES["dissect"]().score(signals(n, trajectory=Trajectory(similarity, similarity)))
    assert found == pytest.approx(rises(similarity.tolist()), abs=1e-12, nan_ok=True)
    assert not (abs(found) > 1).any()
    assert PAIR_SCORES["dissect"].source


@pytest.mark.parametrize("trajectory", [None, Trajectory(*[np.full((2, 3), np.nan, np.float32)] * 2)])
def test_nothing_recorded(trajectory):
    with pytest.raises(InputError) as caught:
        PAIR_SCORES["margin"]().estimate(signals(3, trajectory=trajectory))
    assert caught.value.what == "trajectory"
