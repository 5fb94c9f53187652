"""Attacks on one model by an attacker who knows some non-members: against loops, on known truth, under the null."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from sklearn.model_selection import StratifiedKFold

from clipmem.base.errors import InputError
from clipmem.base.random import derive_seed, generator
from clipmem.functional import auroc
from clipmem.stats.membership import Traits, cross_fitted, loss_and_gradient

PROFILE = settings(max_examples=15, derandomize=True)


def unit(rng, n, d):
    x = rng.normal(size=(n, d))
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def loops(image, text, scale):
    """The loss of each pair of a batch, one logit at a time, and its gradient by automatic differentiation."""
    u, v = (torch.tensor(x, requires_grad=True) for x in (image, text))
    losses = []
    for i in range(len(u)):
        images = sum(torch.exp(scale * (u[i] @ v[j] - u[i] @ v[i])) for j in range(len(u)))
        captions = sum(torch.exp(scale * (u[j] @ v[i] - u[i] @ v[i])) for j in range(len(u)))
        losses.append((torch.log(images) + torch.log(captions)) / 2)
    gradients = torch.autograd.grad(sum(losses), [u, v])
    norms = [math.hypot(*gradients[0][i].tolist(), *gradients[1][i].tolist()) for i in range(len(u))]
    return [float(loss.detach()) for loss in losses], norms


@PROFILE
@given(st.integers(2, 9), st.integers(1, 4), st.floats(0.5, 30), st.integers(0, 99))
def test_loss_and_gradient_against_loops(n, d, scale, seed):
    rng = np.random.default_rng(seed)
    image, text = unit(rng, n, d), unit(rng, n, d)
    found = loss_and_gradient(image, text, scale)  # one batch
    losses, norms = loops(image, text, scale)
    np.testing.assert_allclose(found[:, 0], losses, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(found[:, 1], norms, rtol=1e-7, atol=1e-9)


def test_batches_are_random_and_of_their_size():
    rng = np.random.default_rng(0)
    image, text = unit(rng, 23, 3), unit(rng, 23, 3)
    found = loss_and_gradient(image, text, 5.0, batch=10, seed=4)
    order = generator(4, "contrastive batches").permutation(23)
    for rows in (order[:12], order[12:]):
        losses, norms = loops(image[rows], text[rows], 5.0)
        np.testing.assert_allclose(found[rows], np.stack([losses, norms], axis=1), rtol=1e-7)


def fold_by_hand(signal, features, member, others, tested, threshold):
    """Log odds of the tested pairs, by logistic regression as the minimum of its loss, found from its definition."""
    unseen = [i for i in others if not member[i]]
    mean, sd = (of([signal[i] for i in unseen], axis=0) for of in (np.mean, np.std))
    likely = [i for i in others if sum((signal[i] - mean) / sd) / len(mean) > threshold]
    rows, label = [*unseen, *likely], np.array([0] * len(unseen) + [1] * len(likely))
    center, spread = features[rows].mean(axis=0), features[rows].std(axis=0)
    x = (features - center) / spread
    weight = np.where(label, len(rows) / 2 / len(likely), len(rows) / 2 / len(unseen))

    def loss(w):
        return (weight * np.logaddexp(0, (1 - 2 * label) * (x[rows] @ w[1:] + w[0]))).sum() + w[1:] @ w[1:] / 2

    w = minimize(loss, np.zeros(1 + x.shape[1]), tol=1e-9).x
    return x[tested] @ w[1:] + w[0]


@PROFILE
@given(st.integers(40, 80), st.integers(1, 3), st.integers(0, 99), st.sampled_from([0.0, 0.5]))
def test_the_weakly_supervised_attack_against_loops(n, width, seed, threshold):
    rng = np.random.default_rng(seed)
    member = np.arange(n) % 2 == 0
    signal = rng.normal(size=(n, width)) + member[:, None]
    features = np.hstack([signal, rng.normal(size=(n, 2))])
    found = cross_fitted(Traits(signal, features), member, threshold=threshold, seed=seed)
    folds = StratifiedKFold(5, shuffle=True, random_state=derive_seed(seed, "weakly supervised") % 2**32)
    for others, tested in folds.split(features, member):
        expected = fold_by_hand(signal, features, member, others, tested, threshold)
        apart = np.abs(expected[:, None] - expected) + np.eye(len(tested))
        close = apart.min(axis=1) < 1e-3  # the order of these is rounding
        ranks = np.array([(expected <= value).mean() for value in expected])
        np.testing.assert_allclose(found[tested][~close], ranks[~close], atol=1e-9)


def test_members_whose_similarity_tells_little_are_found_by_what_goes_with_it():
    """Members are .3 higher in the signal, and 1.5 along a direction of the features that the signal reads weakly."""
    rng, n = np.random.default_rng(1), 2000
    member = np.arange(n) % 2 == 0
    features = rng.normal(size=(n, 6))
    features[:, 0] += 1.5 * member
    signal = (0.5 * features[:, 0] + rng.normal(size=n))[:, None]
    score = cross_fitted(Traits(signal, np.hstack([features, signal])), member, threshold=0.5)
    alone, informed = (auroc(x, member).mean for x in (signal[:, 0], score))
    assert alone == pytest.approx(0.68, abs=0.03)
    assert informed > alone + 0.05
    assert score.min() > 0
    assert score.max() <= 1


def test_pairs_that_do_not_differ_are_not_told_apart():
    """Over 40 draws of memberships that mean nothing, the mean AUC is 1/2 within three standard errors."""
    rng, areas = np.random.default_rng(2), []
    for _ in range(40):
        features = rng.normal(size=(400, 5))
        member = rng.permutation(400) < 200
        score = cross_fitted(Traits(features[:, :1], features), member, threshold=0.5, seed=int(rng.integers(99)))
        areas.append(auroc(score, member).mean)
    assert np.mean(areas) == pytest.approx(0.5, abs=3 * np.std(areas) / 40**0.5)
    assert np.std(areas) < 0.05


def test_the_same_twice_and_other_folds_with_another_seed():
    rng = np.random.default_rng(3)
    features, member = rng.normal(size=(200, 3)), np.arange(200) < 100
    first, again, other = (
        cross_fitted(Traits(features[:, :2], features), member, threshold=0.0, seed=seed) for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


@pytest.mark.parametrize("value", [1.0, np.nan])
def test_a_signal_that_tells_nothing_is_refused(value):
    features, member = np.random.default_rng(4).normal(size=(100, 2)), np.arange(100) < 50
    with pytest.raises(InputError) as caught:
        cross_fitted(Traits(np.full((100, 1), value), features), member, threshold=0.0)
    assert caught.value.what == "signal"
