"""Tracing: features and weights against loops from the equations, and effects that are known recovered."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr

from clipmem.base.errors import InputError
from clipmem.stats.tracing import common, fit, lds


def unit(rng, n, d):
    x = rng.standard_normal((n, d))
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def sides(rng, queries=3, n=7, d=5):
    return [(unit(rng, queries, d), unit(rng, n, d)) for _ in range(2)]


def common_by_loop(image, text, q, i):
    """The features of one query and one pair."""

    def cosine(a, b):
        return sum(float(x) * float(y) for x, y in zip(a, b, strict=True))

    values = [cosine(image[0][0][q], text[0][1][i]), cosine(text[0][0][q], image[0][1][i])]
    for (a, b), (c, e) in zip(image, text, strict=True):
        s, t = cosine(a[q], b[i]), cosine(c[q], e[i])
        near, alike = math.exp((s - 1) / 0.05), math.exp((t - 1) / 0.05)
        values += [s, t, s * t, near, alike, near * alike, near * t, s * alike]
    return values


def test_common_is_that_of_a_loop():
    rng = np.random.default_rng(0)
    (first, second), (third, fourth) = sides(rng), sides(rng, d=4)
    image, text = [first, third], [second, fourth]
    features = common(image, text)
    assert features.shape == (18, 3, 7)
    for q in range(3):
        for i in range(7):
            assert features[:, q, i] == pytest.approx(common_by_loop(image, text, q, i), rel=1e-12, abs=1e-15)


def data(seed, couples=4, queries=12, features=3, noise=0.5):
    rng = np.random.default_rng(seed)
    x, weight = rng.standard_normal((couples, queries, features)), rng.standard_normal(features)
    return x, weight, x @ weight + noise * rng.standard_normal((couples, queries))


def ridge_by_loop(x, d, penalty):
    """Minimize the sum of squared errors plus penalty |w|², by rows for every couple and query and for the penalty."""
    rows, targets = [], []
    for of_couple, differences in zip(x, d, strict=True):
        for row, target in zip(of_couple, differences, strict=True):
            rows.append(list(row))
            targets.append(target)
    for k in range(x.shape[2]):
        rows.append([math.sqrt(penalty) * (k == j) for j in range(x.shape[2])])
        targets.append(0.0)
    return np.linalg.lstsq(np.array(rows), np.array(targets), rcond=None)[0]


def test_weights_and_predictions_are_those_of_a_loop():
    x, _, d = data(0)
    tracing = fit(x, d)
    scale = [math.sqrt(sum(float(v) ** 2 for v in x[:, :, f].ravel()) / x[:, :, f].size) for f in range(3)]
    scaled = x / np.array(scale)
    largest = max(np.linalg.eigvalsh(sum(row[:, None] * row for of_couple in scaled for row in of_couple)))
    best, errors = None, math.inf
    for power in range(13):
        penalty = largest * 10 ** (-4 + power / 2)
        predicted = []
        for k in range(len(d)):
            rest = [j for j in range(len(d)) if j != k]
            predicted.append(scaled[k] @ ridge_by_loop(scaled[rest], d[rest], penalty))
        error = sum((a - b) ** 2 for a, b in zip(np.ravel(predicted), np.ravel(d), strict=True))
        if error < errors:
            best, errors = (predicted, ridge_by_loop(scaled, d, penalty) / scale), error
    assert tracing.predicted == pytest.approx(np.array(best[0]), rel=1e-8)
    assert tracing.weight == pytest.approx(best[1], rel=1e-8)


def test_lds_is_the_rank_correlation_over_shadow_models():
    rng = np.random.default_rng(0)
    predicted, true = rng.standard_normal((2, 5, 6))
    predicted[:, 1], predicted[:, 2] = true[:, 1], 0
    values = lds(predicted, true)
    for q in (0, 1, 3, 4, 5):
        both = [[*values[:, q], *-values[:, q]] for values in (predicted, true)]
        assert values[q] == pytest.approx(spearmanr(*both).statistic)
    assert (values[1], values[2]) == (pytest.approx(1), 0)


@given(st.integers(0, 1000), st.lists(st.sampled_from([-1, 1]), min_size=4, max_size=4), st.floats(0.01, 100))
def test_which_model_of_a_couple_is_first_and_units_do_not_matter(seed, signs, unit_of_first):
    """Swapping the models of a couple changes the signs of x and d; a feature in other units has another weight."""
    x, _, d = data(seed)
    first, flip = fit(x, d), np.array(signs)[:, None]
    swapped = fit(x * flip[:, :, None], d * flip)
    assert swapped.weight == pytest.approx(first.weight, rel=1e-6, abs=1e-9)
    assert swapped.lds == pytest.approx(first.lds, abs=1e-9)
    units = np.array([unit_of_first, 1, 1])
    assert fit(x * units, d).weight * units == pytest.approx(first.weight, rel=1e-6, abs=1e-9)


def simulated(seed, noise):
    """Effects of 200 pairs on 100 held-out queries, seen through 6 couples of shadow models."""
    rng = np.random.default_rng(seed)
    thing = rng.integers(0, 30, 300)
    centers = unit(rng, 30, 16)
    image, text = (unit(np.random.default_rng(seed + k), 300, 16) * 0.3 + centers[thing] for k in (1, 2))
    image, text = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (image, text))
    queries, pairs = slice(200, None), slice(200)
    phi = common([(image[queries], image[pairs])], [(text[queries], text[pairs])])
    effect = np.einsum("f,fqn->qn", rng.standard_normal(len(phi)) * (np.arange(len(phi)) > 4), phi)
    member = np.where([rng.permutation(200) < 100 for _ in range(6)], 1.0, -1.0)
    d = member @ effect.T
    d += noise * d.std() * rng.standard_normal(d.shape)
    return (phi @ member.T).transpose(2, 1, 0), d, phi, effect


def test_known_effects_are_found_and_lds_falls_with_noise():
    means = []
    for noise in (0.1, 1, 3):
        x, d, phi, effect = simulated(0, noise)
        tracing = fit(x, d)
        means.append(tracing.lds.mean())
        if noise <= 1:
            estimate = np.einsum("f,fqn->qn", tracing.weight, phi)
            assert np.corrcoef(estimate.ravel(), effect.ravel())[0, 1] > 0.9
    assert means[0] > 0.9 > means[1] > 0.4 > means[2] > 0


def test_lds_is_zero_where_similarities_do_not_depend_on_the_pairs():
    means = []
    for seed in range(40):
        x, d, *_ = simulated(seed, 0.1)
        means.append(fit(x, np.random.default_rng(seed).standard_normal(d.shape)).lds.mean())
    assert abs(np.mean(means)) < 3 * np.std(means, ddof=1) / np.sqrt(len(means))


def test_one_couple_is_not_enough():
    x, _, d = data(0, couples=1)
    with pytest.raises(InputError, match="got 2, expected 4 or more"):
        fit(x, d)
