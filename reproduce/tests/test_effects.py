"""How effects are judged: levels of claims of several effects, of second looks, and of all primaries of a regime."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from clipmem.functional import Claim, paired_test
from clipmem_reproduce.effects import ABOVE, BELOW, Results
from clipmem_reproduce.finding import holds
from clipmem_reproduce.scales import SCALES


def test_the_weakest_of_several_effects_is_shown_only_where_all_are():
    results = Results(lambda spec: None, 0.95)
    clear, mixed = ([0.5, 0.6, 0.55], [0.0] * 3), ([0.1, -0.2, 0.3], [0.0] * 3)
    joint = results.weakest("both", [clear, mixed], ABOVE, primary=False)
    assert joint.low == results.effect("b", *mixed, ABOVE).low
    assert joint.holds == "inconclusive"
    assert results.weakest("both", [clear, clear], ABOVE, primary=False).holds == "yes"
    assert results.weakest("both", [clear, ([0.5], [0.0])], ABOVE, primary=False).low is None


@pytest.mark.parametrize("claim", [ABOVE, BELOW])
@pytest.mark.parametrize("primary", [False, True])
def test_the_weakest_by_hand(claim, primary):
    """Written out: plain level at the end next to 0, the level divided by the number of effects at the other."""
    rng, primaries, k, n = np.random.default_rng(7), 5, 3, 6
    pairs = [(rng.normal(mean, 1, n).tolist(), rng.normal(0, 1, n).tolist()) for mean in (1.0, -0.5, 3.0)]
    found = Results(lambda spec: None, 0.9, primaries).weakest("m", pairs, claim, primary=primary)
    error = 0.1 / primaries if primary else 0.1
    ends = {"estimate": [], "low": [], "high": []}
    for values, base in pairs:
        d = [a - b for a, b in zip(values, base, strict=True)]
        mean = sum(d) / n
        se = (sum((x - mean) ** 2 for x in d) / (n - 1) / n) ** 0.5
        ends["estimate"].append(mean)
        for end, sign in (("low", -1), ("high", 1)):
            next_to_zero = (end == "low") == (claim.side == "above")
            t = stats.t.ppf(1 - error / 2 / (1 if next_to_zero else k), n - 1)
            ends[end].append(mean + sign * t * se)
    pick = min if claim.side == "above" else max
    for end, values in ends.items():
        assert getattr(found, end) == pytest.approx(pick(values)), end
    assert found.confidence == pytest.approx(1 - error)


@pytest.mark.slow
@pytest.mark.parametrize("claim", [ABOVE, BELOW])
def test_a_claim_of_several_effects_is_refuted_wrongly_at_most_as_often_as_one(claim):
    """Three effects at the border of the claim: the error of a "no" is at most half of 1 - confidence."""
    results, rng, n, error = Results(lambda spec: None, 0.8), np.random.default_rng(3), 600, 0.1
    refuted = 0
    for _ in range(n):
        pairs = [(rng.normal(0, 1, 5).tolist(), [0.0] * 5) for _ in range(3)]
        refuted += results.weakest("m", pairs, claim, primary=False).holds == "no"
    assert 0.5 * error < refuted / n < error + 3 * (error * (1 - error) / n) ** 0.5  # undivided: 0.27


@pytest.mark.slow
@pytest.mark.parametrize("split_sd", [0.0, 1.0, 3.0])
@pytest.mark.parametrize("noise", ["normal", "heavy tails"])
def test_intervals_over_splits_and_seeds_cover_the_mean_over_both(split_sd, noise):
    """A replicate has a split and a seed of its own, and both of its runs share them: the interval covers in 95%.

    The effect of a run is the truth, plus what its split does to it, plus what its seed does. With seeds of one split
    alone, as in the first design, the interval covers less the more splits differ.
    """
    rng, n, replicates, truth = np.random.default_rng(5), 1500, 12, 0.3

    def draw(*shape):
        return rng.normal(size=shape) if noise == "normal" else rng.standard_t(5, size=shape) / (5 / 3) ** 0.5

    results, covered = Results(lambda spec: None, 0.95), np.zeros(2)
    for _ in range(n):
        crossed = truth + split_sd * draw(replicates) + draw(replicates)
        one_split = truth + split_sd * draw(1) + draw(replicates)
        base = draw(replicates)  # what both runs of a replicate have in common cancels
        for k, values in enumerate((crossed, one_split)):
            effect = results.effect("m", (values + base).tolist(), base.tolist(), ABOVE)
            covered[k] += effect.low <= truth <= effect.high
    assert 0.93 < covered[0] / n < 0.97
    if split_sd:
        assert covered[1] / n < 0.6


def test_second_looks_are_those_of_the_stored_results():
    scale = SCALES["redundant", "laptop"]
    assert scale.looks == {"removal": 2, "model-size": 2, "one-pass": 2}
    assert not SCALES["unique", "laptop"].looks
    assert not SCALES["redundant", "tiny"].looks


def test_primaries_are_judged_together():
    """With m primaries each has the interval of level 1 - (1 - confidence) / m; other effects the plain one."""
    results, values = Results(lambda spec: None, 0.95, 12), [0.2, 0.5, 0.3, 0.4, 0.1]
    plain, primary = (results.effect("m", values, None, ABOVE, primary=primary) for primary in (False, True))
    expected = paired_test(np.array(values), np.zeros(5), 1 - 0.05 / 12)
    assert (primary.low, primary.high) == (expected.low, expected.high)
    assert (plain.low, plain.high) == paired_test(np.array(values), np.zeros(5), 0.95)[1:3]
    assert (plain.holds, primary.holds) == ("yes", "inconclusive")
    assert holds([plain, primary]) == "inconclusive"  # the primary decides, whatever else there is
    assert holds([plain]) == "inconclusive"


@given(st.lists(st.floats(-1, 1), min_size=2, max_size=6), st.integers(0, 100))
def test_an_effect_is_a_paired_test(values, seed):
    base = np.random.default_rng(seed).normal(size=len(values))
    found = Results(lambda spec: None, 0.9).effect("m", values, base.tolist(), Claim("above"))
    expected = paired_test(np.array(values), base, 0.9)
    assert (found.estimate, found.seeds) == (expected.difference, len(values))
    if expected.low is not None:
        assert (found.low, found.high) == (expected.low, expected.high)
