"""A metric of several models: its mean over them with an interval, and its value under each.

When not to trust an interval: below about 10 groups or 5 seeds it is too narrow.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float64, Int

from clipmem.base.random import bootstrap_counts, generator
from clipmem.evaluate.classification import TOP, classification_metrics
from clipmem.functional import Interval, bootstrap_mean
from clipmem.functional.checks import as_finite, check_confidence, check_draws, check_not_empty, check_same_length

_CELLS = 2_000_000  # resampled groups held at a time


class Statistics(NamedTuple):
    """How intervals are made: level, bootstrap draws, seed of the draws."""

    confidence: float
    draws: int
    seed: int


def entry(interval: Interval, by_seed: Sequence[float]) -> dict[str, Any]:
    """Describe a metric: `mean`, `low`, `high` (None where undefined) and `by_seed`, a value a model, in order."""
    return {**interval._asdict(), "by_seed": [float(value) for value in by_seed]}


def classification_entries(
    ranks: Float64[np.ndarray, "seed n"],
    labels: Int[np.ndarray, "n"],
    groups: Int[np.ndarray, "n"],
    classes: int,
    statistics: Statistics,
) -> dict[str, dict[str, Any]]:
    """Make the metrics of a classifier under several models, each with its interval."""
    by_seed = [classification_metrics(row, labels, classes) for row in ranks]
    found: dict[str, dict[str, Any]] = {}
    for k in TOP:
        name = f"acc{k}"
        if name in by_seed[0]:
            hits = (ranks <= k).astype(np.float64)
            interval = bootstrap_mean(hits, groups, **statistics._asdict())
            found[name] = entry(interval, [one[name] for one in by_seed])
    name, hits = "mean_per_class_recall", (ranks <= 1).astype(np.float64)
    interval = bootstrap_class_mean(hits, labels, groups, **statistics._asdict())
    return {**found, name: entry(interval, [one[name] for one in by_seed])}


def bootstrap_class_mean(
    values: Float64[np.ndarray, "seed n"],
    labels: Int[np.ndarray, "n"],
    groups: Int[np.ndarray, "n"],
    *,
    seed: int,
    draws: int = 2000,
    confidence: float = 0.95,
) -> Interval:
    """Average within each class, then over classes and seeds, with a percentile interval from a two-way bootstrap.

    mean over seeds k of mean over classes c of mean over the pairs i of c of x_ki. Each draw takes as many groups as
    there are, with replacement, and as many seeds; a class without a pair in a draw does not count in it.
    """
    from scipy import sparse

    check_confidence(confidence)
    check_draws(draws)
    values = as_finite("values", values)
    check_not_empty("values", values)
    seeds, n = values.shape
    check_same_length("values", n, "labels", len(labels))
    check_same_length("values", n, "groups", len(groups))
    classes, of_class = np.unique(labels, return_inverse=True)
    names, of_group = np.unique(groups, return_inverse=True)
    shape = (len(names), len(classes))
    sizes: Any = sparse.csr_matrix((np.ones(n), (of_group, of_class)), shape=shape)
    sums: Any = [sparse.csr_matrix((row, (of_group, of_class)), shape=shape) for row in values]
    whole = np.asarray(sizes.sum(axis=0)).ravel()
    mean = float(np.mean([(np.asarray(one.sum(axis=0)).ravel() / whole).mean() for one in sums]))
    if len(names) == 1:
        return Interval(mean, None, None)
    group_stream, seed_stream = generator(seed, "bootstrap", "groups"), generator(seed, "bootstrap", "seeds")
    means = np.empty(draws)
    step = max(1, _CELLS // max(shape))
    for start in range(0, draws, step):
        rows = min(step, draws - start)
        times = bootstrap_counts(group_stream, rows, len(names)).astype(np.float64)
        drawn = times @ sizes
        there = drawn > 0
        by_seed = np.stack(
            [np.divide(times @ one, drawn, out=np.zeros_like(drawn), where=there).sum(axis=1) for one in sums], axis=1
        ) / there.sum(axis=1, keepdims=True)
        picked = seed_stream.integers(seeds, size=(rows, seeds))
        means[start : start + rows] = np.take_along_axis(by_seed, picked, axis=1).mean(axis=1)
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(mean, float(low), float(high))
