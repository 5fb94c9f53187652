"""How often the intervals of planned findings hold the truth, over splits and seeds.

Planted truth: a pool of pairs, each with a CLIPMem of its own, which a mitigation changes by a share of its own. A
replicate draws the roles of the pairs (the split), a shift of f over g that all pairs of a run share, how well a model
of this seed learns, and noise by pair. Both arms have the same split and seed. Each effect is compared with that of the
whole pool: an interval over replicates is for other splits and seeds of the same data (`PLAN.md`).
Run `pytest reproduce/tests/test_coverage.py -s` to print the table.
"""

import sys
from types import SimpleNamespace

import numpy as np
import pytest

from clipmem.base.random import generator
from clipmem.stats import comparisons
from clipmem_reproduce.effects import ABOVE, BELOW, Results, dominance, relative

POOL, CANDIDATES, STUDIES = 1_500, 280, 1_500
CHANGE, RISE = -0.05, 0.03  # mean changes of CLIPMem and of utility


@pytest.fixture(autouse=True)
def without_signed_ranks(monkeypatch):
    """Nine tenths of the time, and no part of an interval."""
    monkeypatch.setattr(comparisons.stats, "wilcoxon", lambda _: SimpleNamespace(pvalue=1.0))


def pool(rng):
    """CLIPMem of each pair without and with a mitigation, and the same of its retrieval."""
    plain = 0.6 * np.exp(0.5 * rng.normal(size=POOL)) / np.exp(0.125)
    found = rng.uniform(0.1, 0.5, POOL)
    return (plain, plain * (1 + CHANGE + rng.normal(0, 0.2, POOL))), (
        found,
        found * (1 + RISE + rng.normal(0, 0.1, POOL)),
    )


def replicate(rng, memorized, retrieved):
    """Half-difference and utility of one split and seed, in each arm."""
    roles = rng.permutation(POOL)
    candidate, independent, held_out = np.split(roles[: 2 * CANDIDATES + 450], [CANDIDATES, 2 * CANDIDATES])
    learns, values = 1 + rng.normal(0, 0.06), list[tuple[float, float]]()
    for of_arm, of_utility in zip(memorized, retrieved, strict=True):
        shift, own = rng.normal(0, 0.03), 1 + rng.normal(0, 0.02)
        of_f, of_g = (
            sign * of_arm[rows] * learns * own + shift + rng.normal(0, 0.1, len(rows))
            for sign, rows in ((1, candidate), (-1, independent))
        )
        hits = rng.random(len(held_out)) < of_utility[held_out] * learns
        values.append(((of_f.mean() - of_g.mean()) / 2, float(hits.mean())))
    return np.array(values)


def reproduction(rng, replicates):
    """The truth of a pool, and the effects as `clipmem reproduce` measures them."""
    memorized, retrieved = pool(rng)
    fall, rise = (arms[1].mean() / arms[0].mean() - 1 for arms in (memorized, retrieved))
    values = np.stack([replicate(rng, memorized, retrieved) for _ in range(replicates)])
    (plain, found), (less, more) = values.transpose(1, 2, 0).tolist()
    results = Results(lambda _: None, 0.95)
    absolute = results.effect("", less, plain, BELOW)
    change = results.effect("", *relative(less, plain, 1), BELOW)
    both = dominance(results, (plain, found), (less, more), "", primary=True)
    truths = memorized[1].mean() - memorized[0].mean(), fall, min(-fall, rise)
    return [(effect.low, truth, effect.high) for effect, truth in zip((absolute, change, both), truths, strict=True)]


@pytest.mark.slow
@pytest.mark.parametrize("replicates", [6, 12])
def test_coverage_over_splits_and_seeds(replicates):
    rng = generator(replicates, "coverage over splits")
    held = np.array(
        [[low <= truth <= high for low, truth, high in reproduction(rng, replicates)] for _ in range(STUDIES)]
    )
    absolute, change, both = held.mean(axis=0)
    sys.stdout.write(f"\n{replicates} replicates: absolute {absolute:.3f}, relative {change:.3f}, weakest {both:.3f}\n")
    assert 0.93 <= absolute <= 0.97
    assert 0.93 <= change <= 0.97
    assert both >= 0.93  # of two that must hold, the end away from 0 is corrected


@pytest.mark.slow
def test_an_effect_of_0_is_found_as_often_as_the_level_says():
    """Of the weakest of two, one of which is 0: a "yes" is wrong at most half as often as the level allows."""
    rng, wrong, results = generator(1, "wrong yes"), 0, Results(lambda _: None, 0.95)
    for _ in range(STUDIES):
        zero, large = rng.normal(0, 1, 12), rng.normal(5, 1, 12)
        effect = results.weakest("", [(zero.tolist(), [0.0] * 12), (large.tolist(), [0.0] * 12)], ABOVE, primary=True)
        wrong += effect.holds == "yes"
    assert 0.012 <= wrong / STUDIES <= 0.038
