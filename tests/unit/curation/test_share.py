"""The share of mismatched captions on known mixtures, and the planted captions that it is estimated with."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.ensemble import HistGradientBoostingClassifier
from threadpoolctl import threadpool_info

from clipmem.base.random import generator
from clipmem.curation import share as share_module
from clipmem.curation.ranking import curate
from clipmem.curation.share import Planted, plant, share_of
from clipmem.functional import auroc
from clipmem.models.signals import Signals
from clipmem.scoring import evidence as evidence_module
from clipmem.scoring.evidence import Evidence
from clipmem.stats.leave_one_out import leave_one_out
from tests.unit.curation.test_ranking import NAMES, THINGS, N, drawings, mixture


@pytest.fixture(scope="module")
def data():
    return drawings()


def test_a_swapped_caption_fits_as_in_swapped_data(data):
    """Planting without a new computation is exactly what swapping two captions gives, all computed again."""
    signals, wrong = data
    fold = signals.once(Evidence).fold
    i = int(np.flatnonzero(~wrong)[3])
    j = next(k for k in np.flatnonzero(~wrong & (fold == fold[i])) if signals.captions[k] != signals.captions[i])
    captions = [list(one) for one in signals.captions]
    captions[i], captions[j] = captions[j], captions[i]
    rows, swapped = np.array([i, j]), Evidence(replace(signals, captions=captions))
    again = swapped.inputs(rows, rows)
    assert again.shape == (2, 8)
    assert (again[:, :4] == swapped.fits[:, rows].T).all()
    assert signals.once(Evidence).inputs(rows, rows[::-1]) == pytest.approx(again, abs=1e-5)


def test_an_unseen_model_is_asked_of_planted_captions_as_of_observed_ones(data):
    stream = np.random.default_rng(4)
    image, text = (torch.tensor(stream.normal(size=(N, 6)), dtype=torch.float32) for _ in range(2))
    evidence = Evidence(replace(data[0], image=image, text=text, unseen=True))
    i, j = np.flatnonzero(evidence.fold == evidence.fold[0])[:2].tolist()
    for a, b in ((i, i), (i, j), (j, i)):
        u, v = image[a].double().numpy(), text[b].double().numpy()
        cosine = evidence.fit(np.array([a]), np.array([b]))[4, 0]
        assert cosine == pytest.approx(u @ v / np.linalg.norm(u) / np.linalg.norm(v), abs=1e-6)
    assert evidence.fits.shape == (5, N)
    swapped = text.clone()
    swapped[[i, j]] = text[[j, i]]
    again = Evidence(replace(data[0], image=image, text=swapped, unseen=True)).fits[4, i]
    assert again == pytest.approx(evidence.fit(np.array([i]), np.array([j]))[4, 0], abs=1e-6)


@pytest.mark.slow
def test_swapped_captions_look_as_in_swapped_data_where_half_are_like_no_other():
    """What is left out may not tell which pair it was: if it is that alone, .2, .1, .0 come out for .7, .5, .3."""
    stream, n = np.random.default_rng(0), 1000
    thing = stream.integers(THINGS, size=n)
    blocks = (stream.integers(0, 256, (THINGS, 8, 8, 3))[thing] + stream.integers(0, 256, (n, 8, 8, 3))) // 2
    pixels = blocks.repeat(8, 1).repeat(8, 2).astype(np.uint8)
    words = ["".join(stream.choice(list("abcdefghij"), 8)) for _ in range(n)]
    own = np.array([NAMES[one] if k % 2 else words[k] for k, one in enumerate(thing)], dtype=object)
    given, rows = own.copy(), stream.permutation(n)[:300]
    given[rows] = own[np.roll(rows, 1)]
    wrong = given != own
    signals = Signals(list(map(str, range(n))), [[text] for text in given], np.arange(n), pixels=pixels.__getitem__)
    planted = plant(signals.once(Evidence), np.unique(given, return_inverse=True)[1], 0)
    for share in (0.3, 0.5, 0.7):
        above = (planted.observed[wrong] > np.quantile(planted.random, share)).mean()
        assert above == pytest.approx(1 - share, abs=0.12)


@given(st.floats(0.05, 0.3), st.integers(0, 1000))
@settings(max_examples=25)
def test_share_is_within_a_quarter_of_the_truth(share, seed):
    planted, _ = mixture(share, seed, n=20_000)
    one = share_of(planted, 0.95)
    assert one.clear
    assert one.found
    assert one.share == pytest.approx(share, rel=0.25)
    assert one.low < share < one.high


@pytest.mark.parametrize("equal", [lambda odds: np.minimum(odds, 2.0), np.round], ids=["saturated", "rounded"])
@pytest.mark.parametrize("share", [0.05, 0.2])
def test_equal_odds_are_counted_among_the_planted_too(share, equal):
    """Where a model tells all swapped captions, their odds are all the same, and none is above the threshold."""
    planted, _ = mixture(share, n=20_000)
    one = share_of(Planted(*(equal(odds) for odds in planted[:3])), 0.95)
    assert (one.clear, one.found) == (True, True)
    assert one.share == pytest.approx(share, rel=0.25)
    assert one.low < share < one.high


def test_nothing_is_found_where_nothing_is_wrong_and_no_number_is_told_where_nothing_is_seen():
    clean = share_of(mixture(0.0)[0], 0.95)
    assert (clean.clear, clean.found, clean.low) == (True, False, 0.0)
    stream = np.random.default_rng(0)
    blind = share_of(Planted(*stream.normal(size=(3, 4000))), 0.95)
    assert (blind.clear, blind.found, blind.low, blind.assumed) == (False, False, 0.0, 0.0)
    assert clean.assumed == 0
    hazy = Planted(stream.normal(-1.4, 1, 4000), *stream.normal(0, 1, (2, 8000)))
    dim = share_of(hazy, 0.95)
    assert not dim.clear
    assert 0 < dim.assumed < dim.share / 3  # nothing is wrong


def test_the_interval_holds_wherever_the_wrong_ones_lie_among_the_planted():
    n, stream = 4000, np.random.default_rng(0)
    random, alike = stream.normal(1.5, 1, 2 * n), stream.normal(2.5, 1, 2 * n)  # told from observed pairs more easily
    right, wrong = stream.normal(-3, 1, n - 400), stream.normal(1.7, 1, 400)
    one = share_of(Planted(np.concatenate([right, wrong]), random, alike), 0.95)
    assert one.share < 0.08
    assert one.low < one.share < 0.1 < one.high


def test_with_few_captions_what_the_odds_miss_is_looked_for_in_the_fits():
    n, stream = 4000, np.random.default_rng(0)

    def scores(wrong, right=-3):
        """Observed pairs, 400 of them wrong around a mean, and planted captions around 3."""
        observed = [stream.normal(right, 1, n - 400), stream.normal(wrong, 0.5, 400)]
        return Planted(np.concatenate(observed), *stream.normal(3, 1, (2, 2 * n)))

    seen, partly, missed = scores(3.4, 0.5), scores(3, 0.5), scores(1)
    alone, none = (share_of(missed._replace(fits=own), 0.95) for own in ((), (seen,)))
    assert (alone.found, alone.clear) == (False, True)
    assert alone.high < 0.01
    assert (none.found, none.clear, none.low) == (False, False, 0)
    assert none.high > 0.1
    one = share_of(partly._replace(fits=(seen,)), 0.95)
    ends = [share_of(each, 0.95) for each in (partly, seen)]
    assert (one.found, one.clear) == (True, True)
    assert one.share == pytest.approx((ends[0].share + ends[1].share) / 2)
    assert (one.low, one.high) == (pytest.approx(ends[0].low), pytest.approx(ends[1].high))
    assert ends[0].high < 0.1 < one.high
    right = Planted(stream.normal(-3, 1, n), *stream.normal(3, 1, (2, 2 * n)))
    assert share_of(right._replace(fits=(right,)), 0.95).clear


@given(st.floats(-0.2, 0.5), st.sampled_from([0.05, 0.1, 0.3]), st.integers(0, 1000))
@settings(max_examples=25)
def test_where_nearly_all_are_told_it_does_not_matter_how_odd_the_wrong_ones_are(odder, share, seed):
    n, stream = 20_000, np.random.default_rng(seed)
    wrong = round(share * n)
    observed = np.concatenate([stream.normal(-3, 1, n - wrong), stream.normal(3 + odder, 1, wrong)])
    odds = Planted(observed, *stream.normal(3, 1, (2, n)))
    hazy = Planted(stream.normal(0, 1, n), *stream.normal(1, 1, (2, n)))
    for planted in (odds, odds._replace(fits=(odds,)), hazy._replace(fits=(odds,))):
        one = share_of(planted, 0.95)
        assert one.share == pytest.approx(share, rel=0.25)
        assert one.low < share < one.high


@pytest.mark.slow
def test_trees_learn_as_much_from_some_pairs_and_rank_all_of_them_alike(data, monkeypatch):
    signals, wrong = data
    evidence, texts = signals.once(Evidence), np.arange(N)
    before = plant(evidence, texts, 0)
    monkeypatch.setattr(share_module, "LEARNED", N // 2)
    after = plant(evidence, texts, 0)
    assert after.observed.shape == (N,)
    assert auroc(after.observed, wrong).mean == pytest.approx(auroc(before.observed, wrong).mean, abs=0.03)
    learned = np.isin(np.arange(N), generator(0, "learned pairs").permutation(N)[: N // 2])
    assert 0.45 < auroc(after.observed, learned).mean < 0.55  # what the trees learned from is not told from the others


@pytest.mark.slow
def test_equal_captions_are_never_planted_on_each_other(data):
    signals = data[0]
    evidence, texts = signals.once(Evidence), np.zeros(N, dtype=int)
    texts[::2] = 1
    seen = []

    class Spy(Evidence):
        def __init__(self):
            self.__dict__ |= evidence.__dict__

        def fit(self, image, caption):
            seen.append(texts[image] == texts[caption])
            return super().fit(image, caption)

    plant(Spy(), texts, 0, 1)
    random, alike = seen
    assert not random.any()
    assert not alike.any()


def test_few_pairs_are_ranked_by_one_thread_as_waiting_threads_are_slow_beside_other_programs(data, monkeypatch):
    seen = {"trees": set(), "matrices": set()}

    def watched(kind, function, **which):
        def run(*given, **named):
            seen[kind] |= {pool["num_threads"] for pool in threadpool_info() if which.items() <= pool.items()}
            return function(*given, **named)

        return run

    trees = HistGradientBoostingClassifier
    monkeypatch.setattr(trees, "fit", watched("trees", trees.fit))
    monkeypatch.setattr(trees, "decision_function", watched("trees", trees.decision_function))
    monkeypatch.setattr(evidence_module, "leave_one_out", watched("matrices", leave_one_out, user_api="blas"))
    before = [pool["num_threads"] for pool in threadpool_info()]
    curate(replace(data[0]))  # its evidence is not known yet
    assert seen == {"trees": {1}, "matrices": {1}}
    assert [pool["num_threads"] for pool in threadpool_info()] == before
