"""Membership inference: against loops, against simulated models of known leakage, and what it refuses."""

from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, norm, t

from clipmem.base.errors import InputError
from clipmem.functional import auroc
from clipmem.scoring.protocols.subsample import balanced_draw
from clipmem.stats.membership import (
    InOut,
    correct_guesses,
    epsilon_bound,
    epsilon_over_targets,
    exposed_share,
    learned_attack,
    lira,
    log_probability,
    offline_lira,
    offline_rmia,
    pair_risk,
    rate_intervals,
    references,
    rmia,
    set_p_value,
)
from clipmem.stats.ranking import true_positive_rates
from tests.reference import loops_membership as loops

PROFILE = settings(max_examples=20, derandomize=True)
seeds = st.integers(0, 2**31)
RATES = np.array([0.01])


def simulated(rng, models=16, n=600, gain=0.0, noise=1.0, spread=3.0, times=None):
    """In/out models: each pair has its own level, and `gain` more where a model trained on it."""
    member = balanced_draw(np.ones(n, dtype=np.int64), models, times or models // 2, rng)
    gain = np.broadcast_to(gain, n)
    signal = rng.normal(0, spread, n) + gain * member + rng.normal(0, noise, (models, n))
    return InOut(signal, member, rng.random((models, n)), np.arange(models))


def halves(rng, couples=8, n=600, gain=0.0, shared=0.0):
    """Complements: the two models of a couple train on the two halves, and share a part of the residual's variance."""
    half = rng.permuted(np.tile(np.arange(n) % 2 == 0, (couples, 1)), axis=1)
    member = np.concatenate([half, ~half])
    common, noise = rng.normal(size=(couples, n)), rng.normal(size=member.shape)
    residual = shared**0.5 * np.tile(common, (2, 1)) + (1 - shared) ** 0.5 * noise
    signal = rng.normal(0, 3.0, n) + gain * member + residual
    return InOut(signal, member, rng.random(member.shape), np.tile(np.arange(couples), 2))


def over_targets(scores, member):
    """AUC and TPR at 1% FPR, means over target models, with the half-width of the 95% interval."""
    auc = np.array([auroc(*row).mean for row in zip(scores, member, strict=True)])
    tpr = np.array([true_positive_rates(*row, RATES)[0] for row in zip(scores, member, strict=True)])
    half = t.ppf(0.975, len(auc) - 1) / len(auc) ** 0.5
    return (auc.mean(), half * auc.std(ddof=1)), (tpr.mean(), half * tpr.std(ddof=1))


def learned(pairs):
    return learned_attack(pairs, np.arange(pairs.signal.shape[1]))


ATTACKS = {"lira": lira, "rmia": rmia, "learned": learned}


@PROFILE
@given(seeds, st.integers(6, 9), st.integers(0, 1))
def test_scores_are_those_of_loops(seed, models, more):
    pairs = simulated(np.random.default_rng(seed), models, 7, gain=1.0, times=models // 2 + more * (models % 2))
    if seed % 2:
        pairs = halves(np.random.default_rng(seed), models // 2, 7, gain=1.0, shared=0.4)
    rows = [values.tolist() for values in pairs]
    np.testing.assert_allclose(lira(pairs), loops.lira(*rows), rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(rmia(pairs, scale=0.5), loops.rmia(*rows, 0.5), rtol=1e-8, atol=1e-8)
    for count in range(1, int((~pairs.member).sum(axis=0).min())):
        np.testing.assert_allclose(offline_lira(pairs, count), loops.offline_lira(rows, count), rtol=1e-8, atol=1e-8)
        np.testing.assert_allclose(offline_rmia(pairs, count), loops.offline_rmia(rows, count), rtol=1e-8, atol=1e-8)
        for a in (0.0, 0.3):
            corrected = offline_rmia(pairs, count, corrections=[a])
            np.testing.assert_allclose(corrected, loops.offline_rmia(rows, count, a), rtol=1e-8, atol=1e-8)
    scores = lira(pairs)
    found = pair_risk(scores, pairs.member, fpr=0.3)
    np.testing.assert_allclose(found.risk, loops.risk(scores.tolist(), rows[1], 0.3))
    for fpr in (0.0, 0.1, 0.4):
        own = true_positive_rates(scores[0], pairs.member[0], np.array([fpr]))[0]
        assert own == pytest.approx(loops.tpr(scores[0].tolist(), rows[1][0], fpr))


@PROFILE
@given(seeds)
def test_the_order_of_models_and_pairs_does_not_matter(seed):
    rng = np.random.default_rng(seed)
    pairs = halves(rng, 4, 20, gain=1.0) if seed % 2 else simulated(rng, 8, 20, gain=1.0)
    order, column = rng.permutation(8), rng.permutation(20)
    moved = InOut(*(values[order][:, column] for values in pairs[:3]), pairs.couple[order])
    for attack in (lira, rmia, partial(offline_lira, count=2), partial(offline_rmia, count=1)):
        np.testing.assert_allclose(attack(moved), attack(pairs)[order][:, column], rtol=1e-9, atol=1e-9)


@PROFILE
@given(seeds, st.sampled_from([np.exp, np.cbrt, lambda x: 3 * x - 7, np.arctan]))
def test_rates_and_risks_keep_under_increasing_functions(seed, function):
    pairs = simulated(np.random.default_rng(seed), 6, 60, gain=1.0)
    scores, member = pairs.signal, pairs.member
    assert [*true_positive_rates(scores[0], member[0], np.linspace(0, 1, 9))] == [
        *true_positive_rates(function(scores[0]), member[0], np.linspace(0, 1, 9))
    ]
    before, after = pair_risk(scores, member, fpr=0.1), pair_risk(function(scores), member, fpr=0.1)
    np.testing.assert_array_equal(before.risk, after.risk)
    np.testing.assert_array_equal(before.percentile, after.percentile)


@pytest.mark.parametrize("gain", [1.5, 2.5])
def test_planted_leakage_is_found_at_its_known_rate(gain):
    # with many references, the optimal attack sees N(0, 1) against N(gain, 1): TPR = 1 - Phi(z(.99) - gain)
    pairs = simulated(np.random.default_rng(1), 64, 1000, gain=gain)
    (auc, _), (tpr, half) = over_targets(lira(pairs), pairs.member)
    best = norm.sf(norm.isf(0.01) - gain)
    assert auc == pytest.approx(norm.cdf(gain / 2**0.5), abs=0.02)
    assert best - 0.06 < tpr < best + half
    # the plain signal, whose pairs have levels of sd 3, sees sd 10 ** .5
    (_, _), (plain, half) = over_targets(pairs.signal, pairs.member)
    assert plain == pytest.approx(norm.sf(norm.isf(0.01) - gain / 10**0.5), abs=0.01 + half)
    assert tpr > 2.5 * plain


@pytest.mark.slow
def test_all_attacks_see_more_than_the_plain_signal():
    rng = np.random.default_rng(2)
    pairs = simulated(rng, 12, 600, gain=rng.exponential(2.0, 600))
    plain = over_targets(pairs.signal, pairs.member)[1][0]
    # RMIA does not use how much a pair's signal varies
    for name, factor in (("lira", 2.5), ("learned", 2.0), ("rmia", 1.1)):
        assert over_targets(ATTACKS[name](pairs), pairs.member)[1][0] > factor * plain, name


@pytest.mark.slow
@pytest.mark.parametrize(("name", "studies"), [("lira", 30), ("rmia", 30), ("learned", 3)])
@pytest.mark.parametrize("times", [3, 4])
def test_without_leakage_no_attack_does_better_than_chance(name, studies, times):
    # with all models as references, the balanced draw would give membership away: the AUC of LiRA would be about .47
    found = []
    for k in range(studies):
        pairs = simulated(np.random.default_rng(100 + k), 8, 400, times=times)
        found.append(over_targets(ATTACKS[name](pairs), pairs.member))
    auc = np.array([one[0][0] for one in found])
    assert abs(auc.mean() - 0.5) < 0.002 + 2.5 * auc.std(ddof=1) / len(auc) ** 0.5
    assert np.mean([abs(mean - 0.5) <= half for (mean, half), _ in found]) >= 0.75
    assert np.mean([one[1][0] for one in found]) == pytest.approx(0.01, abs=0.006)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "studies", "error"), [("lira", 30, 0.006), ("learned", 2, 0.03)])
def test_a_complement_gives_no_membership_away(name, studies, error):
    # as a reference it does: LiRA then has an AUC of .41, the learned attack of .56 (RMIA of .50)
    found = []
    for k in range(studies):
        pairs = halves(np.random.default_rng(200 + k), 5, 400, shared=0.5)
        found.append(over_targets(ATTACKS[name](pairs), pairs.member)[0][0])
    assert np.mean(found) == pytest.approx(0.5, abs=error)


@pytest.mark.parametrize("attack", [offline_lira, offline_rmia])
def test_offline_attacks_use_no_model_that_trained_on_the_pair(attack):
    pairs = simulated(np.random.default_rng(11), 8, 50, gain=1.0)
    other = np.where(pairs.member, pairs.signal + 5, pairs.signal)
    np.testing.assert_array_equal(
        attack(pairs, 2)[~pairs.member], attack(pairs._replace(signal=other), 2)[~pairs.member]
    )


@pytest.mark.parametrize("attack", [offline_lira, offline_rmia])
def test_more_references_help_an_offline_attack(attack):
    pairs = simulated(np.random.default_rng(12), 32, 500, gain=2.0)
    auc = [over_targets(attack(pairs, count), pairs.member)[0][0] for count in (1, 4, 15)]
    # with one reference, N(0, 2) against N(gain, 2); with infinitely many, N(0, 1) against N(gain, 1)
    assert auc[0] == pytest.approx(norm.cdf(2.0 / 2), abs=0.02)
    assert auc[0] + 0.03 < auc[1] < auc[2] == pytest.approx(norm.cdf(2.0 / 2**0.5), abs=0.02)


def tuned_rmia(pairs, count):
    return offline_rmia(pairs._replace(signal=pairs.signal - 12), count, corrections=[0.0, 0.5, 0.99, 1.0])


@pytest.mark.parametrize("attack", [offline_lira, offline_rmia, tuned_rmia])
@pytest.mark.parametrize("make", [simulated, partial(halves, shared=0.5)])
def test_without_leakage_no_offline_attack_does_better_than_chance(attack, make):
    studies = [make(np.random.default_rng(300 + k)) for k in range(10)]
    for count in (1, 3, 7):
        auc = np.array([over_targets(attack(pairs, count), pairs.member)[0][0] for pairs in studies])
        assert abs(auc.mean() - 0.5) < 0.002 + 2.5 * auc.std(ddof=1) / len(auc) ** 0.5


def test_the_correction_is_chosen_on_the_other_couples():
    pairs = halves(np.random.default_rng(14), 4, 300, gain=1.0)
    pairs = pairs._replace(signal=pairs.signal - 12)  # log p far below 0: a changes the order of the pairs
    each = {a: offline_rmia(pairs, 1, corrections=[a]) for a in (0.0, 0.99, 1.0)}
    auc = {a: [auroc(*row).mean for row in zip(scores, pairs.member, strict=True)] for a, scores in each.items()}
    tuned = offline_rmia(pairs, 1, corrections=list(each))
    for target, row in enumerate(tuned):
        others = [k for k in range(8) if k % 4 != target % 4]
        best = max(each, key=lambda a: np.mean([auc[a][k] for k in others]))
        np.testing.assert_array_equal(row, each[best][target])


def test_the_published_share_orders_pairs_as_the_ratio():
    # against the population z, the score of Zarifzadeh et al. is a step function of the pair's ratio alone
    rng = np.random.default_rng(15)
    ratio, population = rng.lognormal(size=200), rng.lognormal(size=60)
    for gamma in (0.5, 1.0, 2.0):
        share = loops.population_share(np.sort(ratio).tolist(), population.tolist(), gamma)
        assert share == sorted(share)


@PROFILE
@given(seeds, st.integers(2, 8), st.sampled_from([1.0, 14.0, 100.0]))
def test_probabilities_are_those_of_a_loop(seed, n, scale):
    rng = np.random.default_rng(seed)
    image, text = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in rng.normal(size=(2, n, 3)))
    bank = rng.random(n) < 0.6
    if bank.sum() < 2:
        bank[:2] = True
    expected = loops.log_probability(image.tolist(), text.tolist(), bank.tolist(), scale)
    log_p = log_probability(image, text, bank, scale)
    np.testing.assert_allclose(log_p, expected, rtol=1e-7, atol=1e-12)
    assert log_p.max() < 0  # so that its log odds are finite
    # both towers count alike
    np.testing.assert_allclose(log_probability(text, image, bank, scale), log_p, rtol=1e-9)


@pytest.mark.parametrize("count", [0, 4])
def test_offline_references_that_are_not_there_are_refused(count):
    pairs = simulated(np.random.default_rng(13), 8, 20, gain=1.0)
    with pytest.raises(InputError) as caught:
        offline_lira(pairs, count)
    assert caught.value.got == f"{count} references"
    assert caught.value.expected == "1 to 3 that never trained on a pair"


def test_without_leakage_nothing_is_gained():
    found = [pair_risk(lira(pairs), pairs.member) for pairs in (simulated(np.random.default_rng(k)) for k in range(20))]
    assert np.mean([one.false_alarm.mean() for one in found]) == pytest.approx(0.01)
    # above the fourth of 300 non-members
    assert np.mean([one.risk.mean() for one in found]) == pytest.approx(4 / 301, abs=0.001)
    assert np.mean([one.percentile.mean() for one in found]) == pytest.approx(0.5, abs=0.01)


def test_the_riskiest_pairs_are_those_with_the_largest_gain():
    gain = np.where(np.arange(500) < 25, 6.0, 0.0)
    pairs = simulated(np.random.default_rng(3), 16, 500, gain=gain)
    found = pair_risk(lira(pairs), pairs.member)
    assert set(np.argsort(found.false_alarm - found.risk, kind="stable")[:20]) <= set(range(25))
    assert exposed_share(pairs, top=0.05) > 0.7
    assert found.false_alarm.max() <= 0.25


@pytest.mark.slow
def test_the_classifier_learns_nothing_from_its_target():
    pairs = simulated(np.random.default_rng(4), 8, 200, gain=1.0)
    first = learned(pairs)[0]
    # other signals of the target in half of the pairs change the scores of these pairs alone
    signal = pairs.signal.copy()
    signal[0, 100:] += np.where(np.arange(100) % 2, 4.0, -4.0)
    other = learned(pairs._replace(signal=signal))[0]
    np.testing.assert_allclose(first[:100], other[:100])
    assert (first[100:] != other[100:]).mean() > 0.9
    # the same scores twice
    np.testing.assert_array_equal(other, learned(pairs._replace(signal=signal))[0])


@pytest.mark.parametrize(("pairs", "effect"), [(100, 1.0), (100, 2.0), (1000, 1.0)])
def test_intervals_contain_the_rate(pairs, effect):
    rng, rates = np.random.default_rng(6), np.array([0.001, 0.01, 0.1])
    member, truth = np.arange(2 * pairs) % 2 == 0, norm.sf(norm.isf(rates) - effect)
    ends = np.array([rate_intervals(rng.normal(effect * member), member, rates) for _ in range(200)])
    assert ((ends[:, 0] <= truth) & (truth <= ends[:, 1])).mean(axis=0).min() >= 0.95
    assert np.ptp(ends, axis=1).mean(axis=0)[-1] < (0.55 if pairs == 100 else 0.18)


def test_ends_of_the_intervals_are_limits_at_order_statistics():
    rng = np.random.default_rng(7)
    member = np.arange(300) % 3 == 0
    scores = np.round(rng.normal(1.5 * member), 1)  # with ties
    low, high = rate_intervals(scores, member, np.array([0.001, 0.05]), confidence=0.9)
    assert low[0] == 0  # the highest of 200 negatives bounds no threshold of 0.1%
    for k, rate in enumerate((0.001, 0.05)):
        chances = [binom.cdf(number, 200, rate) for number in range(200)]
        few = next(number for number, chance in enumerate(chances) if chance >= 0.025)
        many = next(number for number, chance in enumerate(chances) if chance >= 0.975)
        highest = sorted(scores[~member], reverse=True)
        above = sum(x >= highest[many] for x in scores[member])
        assert binom.cdf(above, 100, high[k]) == pytest.approx(0.025)
        if few:
            above = sum(x >= highest[few - 1] for x in scores[member])
            assert binom.sf(above - 1, 100, low[k]) == pytest.approx(0.025)


@pytest.mark.slow
def test_groups_are_not_divided():
    # ten copies of each pair, in the same models: a classifier that saw one of them would know the other's membership
    rng = np.random.default_rng(9)
    few = simulated(rng, 8, 40)
    copies = InOut(*(np.repeat(values, 10, axis=1) for values in few[:3]), few.couple)
    copies = copies._replace(signal=copies.signal + rng.normal(0, 1e-3, copies.signal.shape))
    auc = over_targets(learned_attack(copies, np.repeat(np.arange(40), 10)), copies.member)[0][0]
    assert abs(auc - 0.5) < 0.12


# ---- the lower bound of ε


@PROFILE
@given(st.integers(0, 60), st.integers(0, 60), st.sampled_from([0.6, 0.9, 0.95, 0.99]))
def test_the_bound_is_that_of_a_loop(correct, more, confidence):
    bound = epsilon_bound(correct, correct + more, confidence=confidence)
    assert bound == pytest.approx(loops.epsilon_bound(correct, correct + more, confidence), abs=1e-9)


def test_the_bound_is_the_published_p_value():
    # Steinke, Nasr & Jagielski 2023, appendix D: 75 of 100 guesses, ε = log 3; there with δ = 0
    p = loops.tail(75, 100, np.log(3))
    assert p == pytest.approx(0.553, abs=0.001)
    assert epsilon_bound(75, 100, confidence=1 - p) == pytest.approx(np.log(3), abs=1e-9)


@PROFILE
@given(st.integers(1, 200), st.data())
def test_the_bound_rises_with_correct_guesses_and_falls_with_confidence(guesses, data):
    correct = data.draw(st.integers(0, guesses - 1))
    bounds = [epsilon_bound(correct + k, guesses) for k in (0, 1)]
    assert 0 <= bounds[0] <= bounds[1]
    assert epsilon_bound(correct, guesses, confidence=0.99) <= bounds[0]
    assert epsilon_bound(guesses // 2, guesses) == 0
    assert epsilon_bound(correct, guesses + 1) <= bounds[0]  # one more, which was wrong


@pytest.mark.parametrize("epsilon", [0.0, 0.5, 2.0])
def test_the_bound_covers_randomized_response(epsilon):
    # each answer is that of ε-private randomized response about an independent coin, for which the theorem is exact
    counts = np.random.default_rng(21).binomial(60, 1 / (1 + np.exp(-epsilon)), 4000)
    bounds = np.array([epsilon_bound(int(count), 60) for count in counts])
    assert (bounds <= epsilon).mean() >= 0.95 - 2.5 * (0.05 * 0.95 / 4000) ** 0.5
    assert (bounds <= epsilon).mean() < 0.99  # and it is not idle


@PROFILE
@given(seeds, st.integers(2, 40))
def test_guesses_are_those_of_a_loop_over_the_same_couples(seed, n):
    rng = np.random.default_rng(seed)
    scores, member = rng.normal(size=n).round(1), rng.permuted(np.arange(n) < rng.integers(1, n))
    stream = np.random.default_rng(1)
    sides = [stream.permutation(np.flatnonzero(side)).tolist() for side in (member, ~member)]
    couples = [(scores[a], scores[b]) for a, b in zip(*sides, strict=False)]
    for guesses in range(len(couples) + 1):
        correct = correct_guesses(scores, member, guesses, np.random.default_rng(1))
        assert correct == loops.correct_guesses(couples, guesses)
    with pytest.raises(InputError) as caught:
        correct_guesses(scores, member, len(couples) + 1, rng)
    assert caught.value.what == "guesses"


@pytest.mark.parametrize("models", [2, 6])
def test_which_of_two_matched_pairs_is_the_member_is_a_fair_independent_coin(models):
    # under the draw of `subsample` (6 models) and `halves` (2), with groups of near-duplicates beside single pairs
    sizes, coins = np.array([1] * 8 + [2, 3]), list[list[bool]]()
    for k in range(4000):
        rng = np.random.default_rng([models, k])
        member = balanced_draw(sizes, models, models // 2, rng)[0, :8].astype(np.bool_)
        sides = [rng.permutation(np.flatnonzero(side)) for side in (member, ~member)]
        if len(sides[0]) >= 2 and len(sides[1]) >= 2:
            # whether the member of a couple is the pair of the smaller number: what a score of numbers would guess
            couples = sorted(zip(*sides, strict=False), key=min)[:2]
            coins.append([bool(a < b) for a, b in couples])
    both = np.array(coins)
    assert both.mean(axis=0) == pytest.approx(0.5, abs=0.025)
    assert (both[:, 0] & both[:, 1]).mean() == pytest.approx(0.25, abs=0.022)


@pytest.mark.parametrize("epsilon", [0.0, 1.0])
def test_the_bound_over_models_covers_randomized_response_under_the_draw_of_halves(epsilon):
    # 200 pairs, each couple of members and others answers about its coin; the two models of a draw are complements
    bounds, guesses = [], 20
    for k in range(150):
        rng = np.random.default_rng([22, k])
        member = balanced_draw(np.ones(200, dtype=np.int64), 2, 1, rng).astype(np.bool_)
        correct = []
        for row in member:
            order = rng.permutation(200)  # ε-private answers to "is the pair a member?", by pair
            truth = rng.random(200) < 1 / (1 + np.exp(-epsilon / 2))
            scores = np.where(row == truth, 1.0, 0.0)[order]
            correct.append(correct_guesses(scores + rng.normal(0, 1e-9, 200), row[order], guesses, rng))
        bounds.append(epsilon_over_targets(correct, guesses))
    assert (np.array(bounds) <= epsilon).mean() >= 0.95


def test_the_bound_over_models_is_that_of_the_middle_one_at_half_the_error():
    assert epsilon_over_targets([19, 30, 28, 25], 30) == epsilon_bound(28, 30, confidence=0.975)
    assert epsilon_over_targets([28], 30) == epsilon_bound(28, 30)


def test_without_leakage_the_bound_is_0():
    bounds = []
    for k in range(40):
        pairs = simulated(np.random.default_rng(400 + k), 8, 400)
        correct = [
            correct_guesses(*row, 20, np.random.default_rng(k)) for row in zip(pairs.signal, pairs.member, strict=True)
        ]
        bounds.append(epsilon_over_targets(correct, 20))
    assert np.mean(np.array(bounds) == 0) >= 0.95


@PROFILE
@given(seeds, st.integers(1, 4), st.integers(4, 30), st.booleans())
def test_the_p_value_of_a_set_is_that_of_a_loop(seed, attacks, n, ties):
    rng = np.random.default_rng(seed)
    member = np.arange(n) < max(1, n // 3)
    scores = rng.normal(size=(attacks, n)) + 0.5 * member
    scores = scores.round() if ties else scores
    found = set_p_value(list(scores), member)
    assert found == pytest.approx(loops.set_p_value(scores.tolist(), member.tolist()), abs=1e-9)
    assert found == pytest.approx(set_p_value(list(np.exp(scores)), member), abs=1e-9)


@pytest.mark.parametrize(("gain", "least", "most"), [(0.0, 0.0, 0.08), (0.2, 0.75, 1.0)])
def test_a_set_that_was_not_trained_on_is_seldom_found(gain, least, most):
    """5% of the time or less over 4 attacks; of 500 pairs each, one attack with an AUC of .556 is enough."""
    rng, small = np.random.default_rng(3), []
    member = np.arange(1000) < 500
    for _ in range(200):
        scores = rng.normal(size=(4, 1000))
        scores[2] += gain * member
        small.append(set_p_value(list(scores), member) < 0.05)
    assert least <= np.mean(small) <= most


@pytest.mark.parametrize("member", [np.ones(5, dtype=bool), np.zeros(5, dtype=bool)])
def test_a_set_needs_members_and_others(member):
    with pytest.raises(InputError) as caught:
        set_p_value([np.arange(5.0)], member)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("correct", "guesses", "confidence", "what"),
    [(3, 2, 0.95, "correct"), (-1, 2, 0.95, "correct"), (1, 2, 1.0, "confidence")],
)
def test_a_bound_of_impossible_counts_is_refused(correct, guesses, confidence, what):
    with pytest.raises(InputError) as caught:
        epsilon_bound(correct, guesses, confidence=confidence)
    assert caught.value.what == what


def wrong(change):
    pairs = simulated(np.random.default_rng(7), 8, 20, gain=1.0)
    return InOut(**{**pairs._asdict(), **change(pairs)})


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda p: {"signal": p.signal[:, :5]}, "member"),
        (lambda p: {"signal": np.where(p.signal > 2, np.nan, p.signal)}, "signal"),
        (lambda p: {"signal": np.zeros_like(p.signal)}, "signal"),
        (lambda p: {"member": np.ones_like(p.member)}, "member"),
        (lambda p: {"member": np.zeros_like(p.member)}, "member"),
        (lambda p: {"member": p.member & (np.arange(8) < 1)[:, None]}, "member"),
        (lambda p: {"couple": np.arange(8) // 2}, "couple"),
        (lambda p: {"couple": np.zeros(8, dtype=np.int64)}, "couple"),
    ],
)
def test_what_cannot_be_attacked_is_refused(change, what):
    for attack in (references, lira, rmia, partial(offline_lira, count=2), learned):
        with pytest.raises(InputError) as caught:
            attack(wrong(change))
        assert caught.value.what == what
        assert caught.value.hint


def test_an_empty_class_is_refused():
    with pytest.raises(InputError) as caught:
        true_positive_rates(np.arange(4.0), np.zeros(4, dtype=np.bool_), RATES)
    assert caught.value.got == "0 of 4 pairs"
    with pytest.raises(InputError) as caught:
        pair_risk(np.zeros((2, 4)), np.array([[True] * 4, [False] * 4]))
    assert "model 0" in caught.value.got


def test_the_learned_attack_needs_three_models_on_a_side():
    pairs = simulated(np.random.default_rng(8), 4, 50, gain=1.0)
    lira(pairs)
    with pytest.raises(InputError) as caught:
        learned(pairs)
    assert caught.value.got.startswith("2 models")
