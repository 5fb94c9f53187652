"""Attacks on several targets by the same pairs: means with intervals and the most exposed pairs, against loops."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clipmem.base.errors import InputError
from clipmem.functional import auroc
from clipmem.stats.membership import InOut, exposed_share
from clipmem.stats.ranking import placements, target_means
from tests.reference import loops_membership as loops
from tests.reference.test_reference_functional import crossed_half

PROFILE = settings(max_examples=25, derandomize=True, deadline=None)
seeds = st.integers(0, 2**31)


def trials(rng, models=4, n=14):
    """Scores of pairs, in part shared by the models; memberships; groups of one to three pairs."""
    member = rng.permuted(np.tile(np.arange(n) < n // 2, (models, 1)), axis=1)
    return rng.normal(size=n) + rng.normal(size=(models, n)) + member, member, rng.integers(0, n // 2, n)


@PROFILE
@given(seeds, st.sampled_from([0.0, 0.15, 0.3]), st.sampled_from([0.8, 0.95]))
def test_means_and_intervals_are_those_of_loops(seed, fpr, confidence):
    scores, member, groups = trials(np.random.default_rng(seed))
    means = target_means(scores, member, groups, np.array([fpr]), confidence=confidence)
    targets = [loops.over_target(*row, fpr) for row in zip(scores.tolist(), member.tolist(), strict=True)]
    for k, found in enumerate(means):
        values, influences = zip(*(target[k] for target in targets), strict=True)
        mean = sum(values) / len(values)
        assert found.mean == pytest.approx(mean)
        rows = [[x + (value - mean) / 14 for x in row] for value, row in zip(values, influences, strict=True)]
        half = crossed_half(rows, groups.tolist(), confidence)
        if any(abs(x) > 1e-12 for row in rows for x in row):
            assert (found.low, found.high) == pytest.approx((mean - half, mean + half))
        else:
            assert (found.low, found.high) == (None, None)


@PROFILE
@given(seeds, st.integers(2, 12), st.booleans())
def test_placements_are_shares_of_the_other_class(seed, n, ties):
    rng = np.random.default_rng(seed)
    scores, member = rng.normal(size=n), rng.permutation(np.arange(n) < max(1, n // 3))
    scores = scores.round() if ties else scores
    for i, (score, inside) in enumerate(zip(scores, member, strict=True)):
        gaps = (score - scores[~member]) if inside else (scores[member] - score)
        assert placements(scores, member)[i] == pytest.approx(np.mean((gaps > 0) + 0.5 * (gaps == 0)))
    assert placements(scores, member)[~member].mean() == pytest.approx(auroc(scores, member).mean)


@PROFILE
@given(seeds)
def test_the_order_of_models_and_pairs_does_not_matter_for_means(seed):
    rng = np.random.default_rng(seed)
    scores, member, groups = trials(rng)
    rows, columns = rng.permutation(4), rng.permutation(14)
    moved = scores[rows][:, columns], member[rows][:, columns], groups[columns]
    for before, after in zip(
        *(target_means(*x, np.array([0.15])) for x in ((scores, member, groups), moved)), strict=True
    ):
        assert before[:3] == pytest.approx(after[:3])


def test_what_all_targets_share_widens_the_interval():
    """One model's scores four times: the targets agree, so nothing but other pairs can vary; half as DeLong's."""
    rng = np.random.default_rng(1)
    member = np.arange(200) % 2 == 0
    scores = rng.normal(size=200) + member
    [copies] = target_means(np.tile(scores, (4, 1)), np.tile(member, (4, 1)), np.arange(200), np.array([]))
    alone = auroc(scores, member)
    assert copies.high - copies.low == pytest.approx(alone.high - alone.low, rel=0.03)


def test_without_spread_there_is_no_interval():
    member = np.tile(np.arange(20) < 10, (3, 1))
    for scores, expected in ((member * 1.0, [1.0, 1.0]), (-1.0 * member, [0.0, 0.0]), (np.zeros((3, 20)), [0.5, 0.0])):
        means = target_means(scores, member, np.arange(20), np.array([0.0]))
        assert [x.mean for x in means] == expected
        assert [(x.low, x.high) for x in means] == [(None, None)] * 2


def test_a_target_without_a_class_is_refused():
    with pytest.raises(InputError) as caught:
        target_means(np.zeros((2, 4)), np.array([[True] * 4, [True, False] * 2]), np.arange(4), np.array([0.1]))
    assert caught.value.got == "4 of 4 pairs"


# ---- the most exposed pairs


def in_out(rng, models, n, gain, couples=None):
    """Random halves of the pairs for each model, or for the first model of each couple."""
    half = rng.permuted(np.tile(np.arange(n) % 2 == 0, (couples or models, 1)), axis=1)
    member = np.concatenate([half, ~half]) if couples else half
    signal = rng.normal(0, 3, n) + gain * member + rng.normal(size=member.shape)
    couple = np.tile(np.arange(couples), 2) if couples else np.arange(models)
    return InOut(signal, member, rng.random(member.shape), couple)


@PROFILE
@given(seeds, st.sampled_from([None, 6]), st.sampled_from([0.01, 0.2]), st.sampled_from([0.0, 6.0]))
def test_the_share_of_the_most_exposed_is_that_of_a_loop(seed, couples, top, most):
    pairs = in_out(np.random.default_rng(seed), 12, 30, np.linspace(0, most, 30), couples)
    found = exposed_share(pairs, fpr=0.1, top=top)
    assert found == pytest.approx(loops.exposed_share([values.tolist() for values in pairs], 0.1, top))


@pytest.mark.parametrize(("models", "couples"), [(0, 5), (0, 3), (6, None), (8, None)])
def test_with_few_models_no_share_is_measured(models, couples):
    rng = np.random.default_rng(0)
    pairs = in_out(rng, models, 200, 2.0, couples)
    if not couples:  # each pair in half of the models, as in a study
        member = rng.permuted(np.tile(np.arange(models) % 2 == 0, (200, 1)), axis=1).T
        pairs = pairs._replace(member=member)
    assert exposed_share(pairs) is None


def test_without_advantage_there_is_no_share():
    shares = [exposed_share(in_out(np.random.default_rng(k), 0, 30, 0.0, 6), fpr=0.1) for k in range(20)]
    assert 0 < shares.count(None) < 10
    assert all(0 <= share <= 1 for share in shares if share is not None)


def test_no_half_sees_the_signals_of_the_other():
    """Other signals in one half of the couples change what it ranks and measures, but not the other half's attacks."""
    rng = np.random.default_rng(2)
    gain = np.where(np.arange(400) < 4, 12.0, 0.0)
    pairs = in_out(rng, 0, 400, gain, 8)
    assert exposed_share(pairs, top=0.01) > 0.5
    # exposed under every second couple alone: as nothing repeats, no more than chance
    other = pairs.couple % 2 == 1
    signal = pairs.signal - (gain * pairs.member) * other[:, None] + gain[::-1] * pairs.member * other[:, None]
    assert exposed_share(pairs._replace(signal=signal), top=0.01) < 0.1
