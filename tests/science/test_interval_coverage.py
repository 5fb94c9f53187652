"""How often intervals hold the truth: over models (the table in `clipmem.functional.resampling`), and of means.

Planted truth: x_ri = base_i + truth_i [i in D_r] + noise. A model's shift, shared by all its pairs, is half of the
noise's variance. In-noise has sd 0.05, out-noise an sd of 0.3 on average, scattered by pair (log-normal). The draw is
that of the protocol, balanced, with p = 1/2.
Run `pytest tests/science/test_interval_coverage.py -s` to print the table.
"""

import sys

import numpy as np
import pytest

from clipmem.base.random import generator
from clipmem.functional import crossed_mean, half_difference, jackknife_models
from clipmem.score.protocols.subsample import balanced_draw


def study(seed, models, n):
    rng = generator(seed, "study")
    member = balanced_draw(np.ones(n, dtype=np.int64), models, models // 2, rng)
    truth = rng.normal(0.5, 0.2, n)
    out_sd = 0.3 * np.exp(0.3 * rng.normal(size=n))
    shift, own = rng.normal(size=(models, 1)), rng.normal(size=(models, n))
    noise = (shift + own) / np.sqrt(2) * np.where(member, 0.05, out_sd)
    return rng.normal(0.3, 0.2, n) + truth * member + noise, member, truth


def measure(models, *, studies, n):
    """Return the share of intervals that hold the truth, and their median width."""
    parts = []
    for seed in range(studies):
        values, member, truth = study(seed, models, n)
        interval = jackknife_models(values, member)
        parts.append((interval.low, interval.high, truth))
    low, high, truth = (np.concatenate(column) for column in zip(*parts, strict=True))
    return float(((low <= truth) & (truth <= high)).mean()), float(np.median(high - low))


@pytest.mark.parametrize("models", [8, pytest.param(16, marks=pytest.mark.slow), 32])
def test_coverage(models):
    coverage, width = measure(models, studies=300, n=150)
    sys.stdout.write(f"\nR = {models}: {coverage:.3f} (width {width:.2f})\n")
    assert 0.925 <= coverage <= 0.975


def crossed_study(rng, *, seeds, pairs, seed_sd, own_sd):
    """Scores of C and I, as f and g make them: a shift a seed, a value a pair, noise of each pair under each seed."""
    quality = rng.normal(0, seed_sd, (seeds, 1))  # f better than g altogether: the same for both roles
    own = [sign * 0.2 + rng.normal(0, 0.1, (1, pairs)) + rng.normal(0, 0.1, (seeds, pairs)) for sign in (1, -1)]
    return [values + quality + rng.normal(0, own_sd, (seeds, 1)) for values in own]


@pytest.mark.parametrize(
    ("seed_sd", "own_sd"), [(0.0, 0.004), (0.006, 0.004), (0.03, 0.004), (0.1, 0.004), (0.1, 0.02), (0.5, 0.02)]
)
@pytest.mark.parametrize("pairs", [40, 400])
@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_coverage_of_means(seeds, pairs, seed_sd, own_sd):
    """A role's mean over pairs and seeds, refused with two seeds, and the half-difference."""
    rng, groups = generator(seeds, f"crossed {pairs} {seed_sd} {own_sd}"), np.arange(pairs)
    held = np.zeros((600, 2), dtype=bool)
    for k in range(len(held)):
        own, others = crossed_study(rng, seeds=seeds, pairs=pairs, seed_sd=seed_sd, own_sd=own_sd)
        intervals = crossed_mean(own, groups), half_difference(own, others, groups, groups + pairs)
        held[k] = [one.low <= 0.2 <= one.high for one in intervals]
    mean, half = held.mean(axis=0)
    said = f"{mean:.3f}" if seeds > 2 else "refused"
    sys.stdout.write(
        f"\n{seeds} seeds, {pairs} pairs, seed sd {seed_sd}, {own_sd}: mean {said}, half-difference {half:.3f}\n"
    )
    assert intervals[0].over == ("pairs and seeds" if seeds > 2 else "pairs")
    assert (0.9 if seeds == 2 else 0.92) <= half <= 0.985
    if seeds > 2:
        assert 0.92 <= mean <= 0.985
