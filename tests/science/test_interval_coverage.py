"""How often the intervals over models hold the true in/out difference: the table in `clipmem.functional.resampling`.

Planted truth: x_ri = base_i + truth_i [i in D_r] + noise. A model's shift, shared by all its pairs, is half of the
noise's variance. In-noise has sd 0.05, out-noise an sd of 0.3 on average, scattered by pair (log-normal). The draw is
that of the protocol, balanced, with p = 1/2.
Run `pytest tests/science/test_interval_coverage.py -s` to print the table.
"""

import sys

import numpy as np
import pytest

from clipmem.base.random import generator
from clipmem.functional import jackknife_models
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
