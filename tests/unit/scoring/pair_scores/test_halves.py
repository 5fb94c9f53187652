"""Pair scores of shadow models, `raw` and `distilled`, on drawings and against loops."""

from dataclasses import replace
from statistics import NormalDist, mean, stdev

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr, t

from clipmem.base.sections import DataSection
from clipmem.data.decoding import decode
from clipmem.data.sources import open_source
from clipmem.functional import auroc
from clipmem.models.signals import Halves, Signals, Trajectory
from clipmem.scoring.pair_scores import PAIR_SCORES
from clipmem.scoring.pair_scores.halves import facts, features, transfer
from clipmem.stats.intervals import seed_interval
from clipmem.stats.leave_one_out import leave_one_out_scores
from clipmem.stats.reliability import agreement
from tests.reference.loops_trajectory import in_minus_out
from tests.unit.scoring.pair_scores.test_trajectory import signals

N = 400


@pytest.fixture(scope="module")
def known() -> Signals:
    """400 drawings with embeddings of a made-up model: noisy directions of each emoji's group."""
    source = open_source(DataSection(source="emoji"))
    pairs = source.pairs().sort("uid").head(N)
    pixels = np.stack([decode(one, size=32) for one in source.read(pairs["image"].to_list())])
    stream = np.random.default_rng(0)
    groups = pairs.select(pl.col("sublabel").rank("dense")).to_series().cast(pl.Int64).to_numpy()
    of_group = stream.normal(size=(groups.max() + 1, 16))
    image, text = (of_group[groups] + stream.normal(size=(N, 16)) for _ in range(2))
    image, text = (torch.nn.functional.normalize(torch.from_numpy(x), dim=1) for x in (image, text))
    shared = (image * text).sum(dim=1).numpy()
    return Signals(
        uids=pairs["uid"].to_list(),
        captions=[own[:1] for own in pairs["captions"].to_list()],
        group=np.arange(N),
        image=image,
        text=text,
        alignment=shared,
        pixels=lambda rows: pixels[rows],
        seed=3,
    )


def with_halves(known: Signals, truth: np.ndarray, pairs: int, *, noise: float, seed: int = 0) -> Signals:
    """Add shadow models under which the effect of training is the truth, and A without the pair is 0, plus noise."""
    stream = np.random.default_rng(seed)
    member = stream.random((pairs, N)) < 0.5
    member = np.stack([member, ~member], axis=1).reshape(2 * pairs, N)
    return replace(known, halves=Halves(truth * member + noise * stream.normal(size=member.shape), member))


@pytest.fixture(scope="module")
def truth(known: Signals) -> np.ndarray:
    """What captions say of the image: half of the truth is a feature, and half nobody knows."""
    score = leave_one_out_scores(known.image.numpy(), known.text.numpy())  # pyright: ignore[reportOptionalMemberAccess]
    score = (score - score.mean()) / score.std()
    return score + np.random.default_rng(1).normal(size=N)


def test_what_only_the_embeddings_say_is_found(known: Signals) -> None:
    """A kind of image that is memorized more, which no feature of single pairs shows."""
    assert known.image is not None
    truth = known.image.numpy()[:, 0] * 4
    found = PAIR_SCORES["distilled"]().estimate(with_halves(known, truth, 2, noise=1.0))
    blind = replace(known, image=known.image.flip(dims=(0,)))  # images of other pairs
    missed = PAIR_SCORES["distilled"]().estimate(with_halves(blind, truth, 2, noise=1.0))
    assert found.predicted is not None
    assert missed.predicted is not None
    assert spearmanr(found.predicted, truth)[0] > spearmanr(missed.predicted, truth)[0] + 0.2


def test_the_transferred_regression_is_its_equation(known: Signals) -> None:
    """The sum over facts of weight times normal score of the rank, equal values at their mean rank, by loops."""
    described, weights = facts(known), transfer()["weights"]
    assert list(described) == list(weights)
    expected = np.zeros(N)
    for name, values in described.items():
        for i, value in enumerate(values):
            below, equal = sum(values < value), sum(values == value)
            expected[i] += weights[name] * NormalDist().inv_cdf((below + (equal + 1) / 2 - 0.5) / N)
    found = PAIR_SCORES["transferred"]().estimate(known)
    np.testing.assert_allclose(found.score, expected, atol=1e-9)
    assert (found.stderr, found.calibrated) == (None, False)


def test_the_transferred_regression_puts_swapped_captions_first(known: Signals) -> None:
    """What f did not learn of other pairs: f fits the pairs of a tenth whose captions, and these only, were swapped."""
    assert known.image is not None
    assert known.text is not None
    swapped = np.arange(0, N, 10)
    texts, words = known.text.clone(), list(known.captions)
    for one, other in zip(swapped, np.roll(swapped, N // 20), strict=True):
        words[one], texts[one] = known.captions[other], known.image[one]
    score = PAIR_SCORES["transferred"]().score(replace(known, captions=words, text=texts))
    assert auroc(score, np.isin(np.arange(N), swapped)).mean > 0.7


def test_the_interval_for_new_data_is_that_of_the_agreements() -> None:
    """Of one more draw of a normal distribution, by the agreements of data that the weights were not fitted on."""
    values, entry = list(transfer()["agreement"].values()), transfer()["new data"]["transferred"]
    half = t.ppf(0.975, len(values) - 1) * stdev(values) * (1 + 1 / len(values)) ** 0.5
    shown = (entry["mean"], entry["low"], entry["high"])
    assert shown == pytest.approx((mean(values), mean(values) - half, min(mean(values) + half, 1)), abs=0.002)
    assert len(values) == 5


@pytest.mark.slow
def test_it_agrees_more_than_the_raw_difference(known: Signals, truth: np.ndarray) -> None:
    """Through noise three times the effect; and it says how much."""
    signals = with_halves(known, truth, 2, noise=3.0)
    raw, found = (PAIR_SCORES[name]().estimate(signals) for name in ("raw", "distilled"))
    assert spearmanr(found.score, truth)[0] > spearmanr(raw.score, truth)[0] + 0.1
    assert found.calibrated
    assert found.predicted is not None
    effect = signals.halves.effect  # pyright: ignore[reportOptionalMemberAccess]
    printed = agreement(effect, found, signals.group)
    assert printed is not None
    assert printed.low - 0.05 < spearmanr(found.score, truth)[0] < printed.high + 0.05


@pytest.mark.slow
def test_no_pair_enters_its_own_prediction(known: Signals, truth: np.ndarray) -> None:
    """Another difference of some pairs of one group leaves their predictions as they are, and changes others."""
    grouped = replace(known, group=np.where(np.arange(N) < 5, 0, np.arange(N)))
    signals = with_halves(grouped, truth, 2, noise=1.0)
    assert signals.halves is not None
    moved = signals.halves.alignment.copy()
    moved[:, :5] += 40 * signals.halves.member[:, :5]
    other = replace(signals, halves=replace(signals.halves, alignment=moved))
    before, after = (PAIR_SCORES["distilled"]().estimate(one).predicted for one in (signals, other))
    assert np.array_equal(before[:5], after[:5])  # pyright: ignore[reportOptionalSubscript]
    assert not np.array_equal(before[5:], after[5:])  # pyright: ignore[reportOptionalSubscript]


@pytest.mark.slow
def test_the_fit_without_a_pair_of_shadow_models_knows_nothing_of_it(known: Signals, truth: np.ndarray) -> None:
    """Other differences of one pair of shadow models leave the fit without it as it is, and change the others."""
    signals = with_halves(known, truth, 3, noise=1.0)
    assert signals.halves is not None
    moved = signals.halves.alignment.copy()
    moved[2:4] += np.random.default_rng(5).normal(size=(2, N))
    other = replace(signals, halves=replace(signals.halves, alignment=moved))
    before, after = (PAIR_SCORES["distilled"]().estimate(one).left_out for one in (signals, other))
    assert before is not None
    assert after is not None
    assert [np.array_equal(a, b) for a, b in zip(before, after, strict=True)] == [False, True, False]


@pytest.mark.slow
def test_the_own_difference_counts_where_it_is_reliable(known: Signals, truth: np.ndarray) -> None:
    """With little noise w is near 1 and the score near the truth; with one pair of shadow models w is 0."""
    sure = PAIR_SCORES["distilled"]().estimate(with_halves(known, truth, 4, noise=0.2))
    assert sure.own > 0.9
    assert spearmanr(sure.score, truth)[0] > 0.97
    assert sure.stderr is not None
    assert np.mean(np.abs(sure.score - truth) < 2 * sure.stderr) == pytest.approx(0.95, abs=0.03)
    one = PAIR_SCORES["distilled"]().estimate(with_halves(known, truth, 1, noise=0.2))
    assert (one.own, one.stderr) == (0.0, None)


@pytest.mark.parametrize("pairs", [2, 4])
def test_intervals_of_raw_differences_cover(pairs):
    stream, n = np.random.default_rng(pairs), 4000
    member = stream.random((pairs, n)) < 0.5
    member = np.stack([member, ~member], axis=1).reshape(2 * pairs, n)
    effect = stream.normal(0.5, 0.2, n)
    shadow = Halves(effect * member + stream.normal(0, 0.2, member.shape), member)
    found = PAIR_SCORES["raw"]().estimate(signals(n, halves=shadow))
    covered = np.abs(found.score - effect) <= t.ppf(0.975, found.df) * found.stderr
    assert covered.mean() == pytest.approx(0.95, abs=0.015)


def test_an_error_is_never_0(known: Signals) -> None:
    # the truth varies less than the noise of its measured variance, which by chance comes out at 0
    small = 0.05 * np.random.default_rng(2).normal(size=N)
    for seed in range(3):
        found = PAIR_SCORES["distilled"]().estimate(with_halves(known, small, 2, noise=0.3 / 2**0.5, seed=seed))
        assert found.stderr is not None
        assert 0.95 < found.stderr[0] / np.sqrt(np.mean((found.score - small) ** 2)) < 1.8


def test_features_with_and_without_a_trajectory(known: Signals) -> None:
    """A value of each pair under each name; the trajectory adds two, and missing epochs are no NaN."""
    plain = features(known)
    assert all(one.shape == (N,) and np.isfinite(one).all() for one in plain.values())
    margin = np.random.default_rng(0).normal(size=(6, N)).astype(np.float32)
    margin[2, 7] = np.nan
    more = features(replace(known, trajectory=Trajectory(margin, margin)))
    assert set(more) - set(plain) == {"mean margin", "early similarity"}
    assert all(np.isfinite(one).all() for one in more.values())


def test_similarities_against_a_loop(known: Signals) -> None:
    """Margin and s-CLIPLoss of a few pairs, from their definitions."""
    found = features(known)
    u, v = known.image.numpy(), known.text.numpy()  # pyright: ignore[reportOptionalMemberAccess]
    for i in (0, 17, 399):
        others = [max(u[i] @ v[j], u[j] @ v[i]) for j in range(N) if j != i]
        assert found["margin"][i] == pytest.approx(u[i] @ v[i] - max(others))
        crowd = sum(np.log(sum(np.exp(s / 0.05) for s in side)) for side in (v @ u[i], u @ v[i]))
        assert found["s-CLIPLoss"][i] == pytest.approx(u[i] @ v[i] - 0.05 / 2 * crowd)


def halves(seed, n=7, pairs=2, **changes):
    rng = np.random.default_rng(seed)
    member = rng.random((pairs, n)) < 0.5
    return Halves(rng.normal(size=(2 * pairs, n)), np.stack([member, ~member], axis=1).reshape(2 * pairs, n), **changes)


@given(st.integers(0, 2**32 - 1), st.sampled_from([1, 2, 3]), st.booleans())
def test_raw_difference_against_a_loop(seed, pairs, proxy):
    given_halves = halves(seed, pairs=pairs, proxy=proxy)
    found = PAIR_SCORES["raw"]().estimate(signals(7, halves=given_halves))
    score, effects = in_minus_out(given_halves.alignment.tolist(), given_halves.member.tolist())
    assert found.score == pytest.approx(score, abs=1e-12)
    assert (found.calibrated, found.own) == (not proxy, 1.0)
    error = seed_interval(np.array(effects).T).stderr
    assert found.stderr is None if pairs == 1 else found.stderr == pytest.approx(error, abs=1e-12)
