"""What `clipmem audit` says of a run, on simulated signals: intervals of LiRA, and the share of the most exposed.

Each pair has its own level, and `gain` more where a model trained on it; models differ by normal noise. Pairs stay and
models are new, or both are new: LiRA does not see a pair's level. `-s` prints the shares.
"""

import sys

import numpy as np
import pytest

from clipmem.base.random import generator
from clipmem.scoring.protocols.subsample import balanced_draw
from clipmem.stats.membership import InOut, exposed_share, lira
from clipmem.stats.ranking import target_means

ATTACKS = 7  # of an audit, among which the level is divided
RATES = np.array([0.001, 0.01])


def subsample(rng, models, n, gain):
    member = balanced_draw(np.ones(n, dtype=np.int64), models, models // 2, rng).astype(np.bool_)
    return InOut(signals(rng, member, gain), member, rng.random(member.shape), np.arange(models))


def halves(rng, couples, n, gain):
    half = rng.permuted(np.tile(np.arange(n) < n // 2, (couples, 1)), axis=1)
    member = np.stack([half, ~half], axis=1).reshape(-1, n)
    return InOut(signals(rng, member, gain), member, rng.random(member.shape), np.repeat(np.arange(couples), 2))


def signals(rng, member, gain):
    return rng.normal(size=member.shape[1]) + gain * member + rng.normal(size=member.shape)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("draw", "number", "n", "gain", "studies"),
    [
        (subsample, 16, 1200, 0.0, 150),
        (subsample, 16, 400, 0.0, 300),
        (halves, 8, 400, 0.0, 300),
        (halves, 3, 400, 0.0, 300),
        (halves, 8, 400, 1.0, 300),
    ],
)
def test_intervals_over_targets_hold_the_truth(draw, number, n, gain, studies):
    """t intervals over targets miss the AUC in 9 to 20%, and find LiRA above chance in 1 to 4% of nulls."""
    rng, means, least = generator(number, f"targets {draw.__name__} {n} {gain}"), [], []
    for _ in range(studies):
        pairs = draw(rng, number, n, gain)
        trials = lira(pairs), pairs.member, np.arange(n)
        means.append([row[:3] for row in target_means(*trials, RATES)])
        least.append(target_means(*trials, RATES[:0], confidence=1 - 0.05 / ATTACKS)[0].low)
    mean, low, high = np.moveaxis(np.array(means, dtype=np.float64), 2, 0)  # without spread: NaN, which holds nothing
    truth = np.where([gain == 0, False, False], 0.5, mean.mean(axis=0))
    missed, above = 1 - ((low <= truth) & (truth <= high)).mean(axis=0), np.mean(np.array(least) > 0.5)
    sys.stdout.write(
        f"\n{draw.__name__} {number}, {n} pairs, gain {gain}: missed {missed.round(3)}, above {above:.4f}\n"
    )
    error = (0.05 * 0.95 / studies) ** 0.5
    assert missed[0] <= 0.05 + 2 * error
    assert missed[2] <= 0.1 + 2 * error
    if gain == 0:
        assert above <= 0.0036 + 2 * (0.0036 / studies) ** 0.5


@pytest.mark.slow
@pytest.mark.parametrize(("draw", "number"), [(subsample, 16), (subsample, 12), (halves, 8), (halves, 6)])
@pytest.mark.parametrize("gain", [1.5, 3.0])
def test_where_all_pairs_leak_alike_the_most_exposed_carry_their_number(draw, number, gain):
    """1%: attacks with the references of both halves would say 2.8 to 4.0% at a gain of 1.5."""
    rng = generator(number, f"exposed {draw.__name__} {gain}")
    shares = np.array([exposed_share(draw(rng, number, 1200, gain)) for _ in range(30)], dtype=np.float64)
    error = shares.std(ddof=1) / 30**0.5
    sys.stdout.write(f"\n{draw.__name__} {number}, gain {gain}: {shares.mean():.4f} ± {error:.4f}\n")
    assert error < 0.002
    assert abs(shares.mean() - 0.01) < 3 * error + 0.001  # cut at 0, which adds a little
