"""The linear probe: scikit-learn and a slow regression agree, C is chosen by groups, edges and errors."""

import inspect

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Normalizer, StandardScaler

from clipmem.base.errors import InputError
from clipmem.measure.linear_probe import fit, linear_probe, validation_part
from tests.reference import loops_utility as reference

raw_probe, raw_part = inspect.unwrap(linear_probe), inspect.unwrap(validation_part)


def study(n=90, c=4, d=6, seed=0, noise=1.0):
    rng = np.random.default_rng(seed)
    centers, labels = rng.normal(size=(c, d)), rng.integers(c, size=n)
    return centers[labels] + noise * rng.normal(size=(n, d)), labels


@pytest.mark.parametrize(("c", "strength"), [(3, 0.1), (3, 1.0), (4, 0.02)])
def test_the_fit_is_that_of_a_slow_regression(c, strength):
    x, y = study(n=40, c=c, d=3)
    weights, intercepts = reference.logistic_regression(
        x.tolist(), y.tolist(), c, strength, step=0.05 / max(1.0, strength), steps=1500
    )
    found = fit(x, y, strength)
    scores = x @ found.weights.T + found.bias
    expected = x @ np.array(weights).T + np.array(intercepts)
    # scores are defined up to a constant an image, and scikit-learn stops where its gradient is below 1e-4
    np.testing.assert_allclose(
        scores - scores.mean(axis=1, keepdims=True), expected - expected.mean(axis=1, keepdims=True), atol=2e-2
    )


def test_with_two_classes_it_is_the_binary_regression():
    x, y = study(n=40, c=2, d=3)
    # by softmax the rows are w/2 and -w/2, which cost half of what the one row w costs: as if C were doubled
    weights, intercepts = reference.logistic_regression(x.tolist(), y.tolist(), 2, 1.0, step=0.02, steps=3000)
    found = fit(x, y, 2.0)
    scores = x @ found.weights.T + found.bias
    expected = x @ np.array(weights).T + np.array(intercepts)
    np.testing.assert_allclose((scores[:, 1] - scores[:, 0]) / 2, expected[:, 1] - expected[:, 0], atol=2e-2)


def test_the_probe_is_scikit_learns_pipeline():
    x, y = study(n=120, noise=1.5)
    test, truth = study(n=80, noise=1.5, seed=1)
    groups = np.arange(120) // 2
    found = linear_probe((x, y), groups, (test, truth), grid=(0.01, 0.1, 1.0), seed=3)
    held = validation_part(groups, 0.2, seed=3)
    accuracies = []
    for c in (0.01, 0.1, 1.0):
        model = make_pipeline(Normalizer(), StandardScaler(), LogisticRegression(C=c, max_iter=2000, tol=1e-8))
        model.fit(x[~held], y[~held])
        accuracies.append(model.score(x[held], y[held]))
    assert found.validation == pytest.approx(accuracies, abs=1 / held.sum())  # one image may lie on a border
    model = make_pipeline(Normalizer(), StandardScaler(), LogisticRegression(C=found.c, max_iter=2000, tol=1e-8))
    model.fit(x, y)
    scores = model.decision_function(test)
    true = scores[np.arange(80), truth]
    expected = 1 + (scores > true[:, None]).sum(axis=1)
    assert (found.ranks == expected).mean() >= 0.95
    assert found.converged
    assert found.c == (0.01, 0.1, 1.0)[int(np.argmax(found.validation))]


@pytest.mark.parametrize("seed", range(3))
def test_labels_of_noise_are_found_as_often_as_chance(seed):
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(300, 8)), rng.integers(4, size=300)
    test, truth = rng.normal(size=(2000, 8)), rng.integers(4, size=2000)
    ranks = linear_probe((x, y), np.arange(300), (test, truth), seed=0).ranks
    assert (ranks <= 1).mean() == pytest.approx(0.25, abs=0.04)


def test_a_class_that_nobody_trained_on_is_never_found():
    x, y = study(c=3)
    test, truth = study(n=20, c=3, seed=1)
    ranks = linear_probe((x[y > 0], y[y > 0]), np.arange((y > 0).sum()), (test, truth), seed=0).ranks
    assert np.isinf(ranks[truth == 0]).all()
    assert np.isfinite(ranks[truth > 0]).all()


def test_the_class_may_be_missing_from_the_part_that_is_fitted():
    # class 1 is one group: if it is the one held out, nothing is left to tell apart
    x = np.array([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [0.1, 1.0]])
    y, groups = np.array([0, 0, 1, 1]), np.array([0, 0, 1, 1])
    for seed in range(4):
        found = linear_probe((x, y), groups, (x, y), seed=seed)
        assert found.validation == [0.0] * 4
        assert found.c == 0.001
        assert found.ranks.tolist() == [1.0] * 4


def test_of_equally_good_strengths_the_weakest_is_taken():
    x, y = study(noise=0.01)
    assert linear_probe((x, y), np.arange(90), (x, y), grid=(0.5, 1.0, 2.0), seed=0).c == 0.5


@settings(max_examples=15)
@given(st.integers(0, 10**6), st.floats(0.01, 1000))
def test_order_length_and_names_of_classes_change_nothing(seed, length):
    rng = np.random.default_rng(seed)
    x, y = study(n=40, c=3, d=4, seed=seed)
    test, truth = study(n=20, c=3, d=4, seed=seed + 1)
    groups = np.arange(40) // 2
    options = {"grid": (0.01, 0.1), "seed": 1}
    found = raw_probe((x, y), groups, (test, truth), **options)
    rows = rng.permutation(40)
    names = rng.permutation(3) * 10 - 5
    training, tested = (length * x[rows], names[y[rows]]), (length * test, names[truth])
    again = raw_probe(training, groups[rows], tested, **options)
    # another order of rows and classes: sums and steps round otherwise, and an image on a border may change sides
    assert (found.ranks == again.ranks).mean() >= 0.9
    assert found.validation == pytest.approx(again.validation, abs=0.13)


@settings(max_examples=50)
@given(st.integers(0, 10**6), st.integers(2, 40), st.floats(0.01, 0.99))
def test_the_part_is_of_whole_groups_and_never_all(seed, n, share):
    groups = np.random.default_rng(seed).integers(1000, size=n) // 100
    if len(set(groups.tolist())) < 2:
        groups[0] = 99
    part = raw_part(groups, share, seed=seed)
    assert not set(groups[part]) & set(groups[~part])
    assert 0 < part.sum() < n
    largest = np.bincount(groups).max()
    assert part.sum() >= min(share * n, n - largest)
    rows = np.random.default_rng(seed).permutation(n)
    assert (raw_part(groups[rows], share, seed=seed) == part[rows]).all()


def test_a_coordinate_that_does_not_vary_is_not_blown_up():
    x, y = study(d=3)
    flat = np.hstack([x / np.linalg.norm(x, axis=1, keepdims=True) * 0.6, np.full((90, 1), 0.8)])
    flat[:, 3] += 1e-15 * np.arange(90) % 2e-15
    ranks = linear_probe((flat, y), np.arange(90), (flat, y), seed=0).ranks
    assert (ranks <= 1).mean() > 0.5


@pytest.mark.parametrize(
    ("changes", "what", "got"),
    [
        ({"labels": np.zeros(6, dtype=int)}, "labels", "1 class among 6 training pairs"),
        ({"groups": np.zeros(6, dtype=int)}, "groups", "1 group of pairs"),
        (
            {"train": np.vstack([np.zeros(2), np.ones((5, 2))])},
            "training embeddings",
            "1 zero and 0 not finite rows of 6, the first at index [0]",
        ),
        (
            {"test": np.array([[np.nan, 1.0]])},
            "test embeddings",
            "0 zero and 1 not finite rows of 1, the first at index [0]",
        ),
        ({"labels": np.arange(5)}, "embeddings and labels", "6 and 5 values"),
    ],
)
def test_errors(changes, what, got):
    given_ = {
        "train": np.ones((6, 2)),
        "labels": np.arange(6) % 2,
        "groups": np.arange(6),
        "test": np.ones((1, 2)),
        "test_labels": np.zeros(1, dtype=int),
        **changes,
    }
    train, labels, groups, test, truth = given_.values()
    with pytest.raises(InputError) as error:
        raw_probe((train, labels), groups, (test, truth), seed=0)
    assert (error.value.what, error.value.got) == (what, got)


def test_many_classes_of_which_some_have_one_training_pair():
    rng = np.random.default_rng(0)
    centers, y = rng.normal(size=(60, 32)), np.concatenate([np.repeat(np.arange(40), 8), np.arange(40, 60)])
    x = centers[y] + 0.2 * rng.normal(size=(len(y), 32))
    test = centers + 0.2 * rng.normal(size=(60, 32))
    found = linear_probe((x, y), np.arange(len(y)), (test, np.arange(60)), seed=0)
    assert np.isfinite(found.ranks).all()  # all are fitted in the end, with those that validation took away
    assert (found.ranks[:40] <= 1).mean() > 0.9
    assert found.converged
