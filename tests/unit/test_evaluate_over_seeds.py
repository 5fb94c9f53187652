"""Metrics over seeds: values by seed, intervals against a plain bootstrap and against scipy-free loops."""

import inspect

import numpy as np
import pytest

from clipmem.base.errors import InputError
from clipmem.evaluate.classification import classification_metrics
from clipmem.evaluate.over_seeds import Statistics, bootstrap_class_mean, classification_entries

raw = inspect.unwrap(bootstrap_class_mean)


def study(seeds=3, n=60, c=6, seed=0):
    rng = np.random.default_rng(seed)
    labels = np.minimum(rng.geometric(0.4, size=n) - 1, c - 1)
    return rng.integers(1, c + 1, size=(seeds, n)).astype(float), labels, np.arange(n) // 2


def test_the_values_by_seed_are_those_of_each_model_alone():
    ranks, labels, groups = study()
    found = classification_entries(ranks, labels, groups, 6, Statistics(0.95, 200, 0))
    assert list(found) == ["acc1", "acc5", "mean_per_class_recall"]
    for name, entry in found.items():
        assert set(entry) == {"mean", "low", "high", "by_seed"}
        expected = [classification_metrics(row, labels, 6)[name] for row in ranks]
        assert entry["by_seed"] == pytest.approx(expected)
        assert entry["mean"] == pytest.approx(np.mean(expected))
        assert entry["low"] < entry["mean"] < entry["high"]


def test_the_interval_is_that_of_a_plain_bootstrap():
    ranks, labels, groups = study(seed=2)
    hits = (ranks <= 1).astype(float)
    found = bootstrap_class_mean(hits, labels, groups, seed=0, draws=4000)
    rng, means = np.random.default_rng(1), []
    members = [np.flatnonzero(groups == one) for one in np.unique(groups)]
    for _ in range(4000):
        rows = np.concatenate([members[k] for k in rng.integers(len(members), size=len(members))])
        picked = rng.integers(3, size=3)
        means.append(np.mean([[hits[k, rows][labels[rows] == c].mean() for c in set(labels[rows])] for k in picked]))
    low, high = np.quantile(means, [0.025, 0.975])
    assert found.low == pytest.approx(low, abs=0.015)
    assert found.high == pytest.approx(high, abs=0.015)


def test_with_one_class_it_is_the_interval_of_the_mean():
    from clipmem.functional import bootstrap_mean

    values, groups = np.random.default_rng(0).random((2, 40)), np.arange(40) // 3
    one = bootstrap_class_mean(values, np.zeros(40, dtype=int), groups, seed=4, draws=500)
    other = bootstrap_mean(values, groups, seed=4, draws=500)
    assert one == pytest.approx(other)


def test_the_draws_are_the_seeds_and_the_order_of_pairs_is_none():
    ranks, labels, groups = study()
    hits = (ranks <= 1).astype(float)
    found = bootstrap_class_mean(hits, labels, groups, seed=0, draws=300)
    assert bootstrap_class_mean(hits, labels, groups, seed=0, draws=300) == found
    assert bootstrap_class_mean(hits, labels, groups, seed=1, draws=300) != found
    rows = np.random.default_rng(0).permutation(60)
    assert bootstrap_class_mean(hits[:, rows], labels[rows], groups[rows], seed=0, draws=300) == pytest.approx(found)
    narrow = bootstrap_class_mean(hits, labels, groups, seed=0, draws=300, confidence=0.5)
    assert found.low < narrow.low < narrow.high < found.high


def test_it_is_done_in_blocks(monkeypatch):
    from clipmem.evaluate import over_seeds

    ranks, labels, groups = study()
    hits = (ranks <= 1).astype(float)
    whole = bootstrap_class_mean(hits, labels, groups, seed=0, draws=101)
    sizes, original = [], over_seeds.bootstrap_counts
    monkeypatch.setattr(over_seeds, "_CELLS", 300)
    monkeypatch.setattr(over_seeds, "bootstrap_counts", lambda s, d, n: sizes.append(d) or original(s, d, n))
    parts = bootstrap_class_mean(hits, labels, groups, seed=0, draws=101)
    assert max(sizes) == 10
    assert sum(sizes) == 101
    assert parts == pytest.approx(whole)


def test_one_group_has_no_interval():
    found = bootstrap_class_mean(np.array([[1.0, 0.0, 0.0]]), np.array([0, 0, 1]), np.zeros(3, dtype=int), seed=0)
    assert found == (0.25, None, None)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": np.zeros(2, dtype=int)}, "values and labels: got 3 and 2 values, expected one value a pair in both."
         " Join both on the pairs' uid first."),
        ({"draws": 0}, "draws: got 0, expected a whole number >= 1. Use 2000."),
        ({"confidence": 1.0}, "confidence: got 1.0, expected a number between 0 and 1. Use 0.95."),
        ({"values": np.zeros((1, 0))}, "values: got no value, expected at least one. Check which pairs were selected."),
    ],
)  # fmt: skip
def test_errors(changes, message):
    options = {"values": np.ones((1, 3)), "labels": np.arange(3), "groups": np.arange(3), "seed": 0, **changes}
    with pytest.raises(InputError) as error:
        raw(options.pop("values"), options.pop("labels"), options.pop("groups"), **options)
    assert str(error.value) == message
