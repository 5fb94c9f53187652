"""A metric of several models: its mean over them with an interval, and its value under each.

When not to trust an interval: below about 10 groups of pairs it is too narrow.
"""

from collections.abc import Sequence
from typing import NamedTuple, NotRequired, TypedDict

import numpy as np
from jaxtyping import Float64, Int

from clipmem.measure.zero_shot import TOP, classification_metrics
from clipmem.stats.checks import Codes, check_same_length
from clipmem.stats.intervals import Interval, checked_values, crossed_interval
from clipmem.stats.ranking import beta_bounds

Parts = Sequence[Float64[np.ndarray, "seed _"]]  # values of each set under each model
Owners = Sequence[Int[np.ndarray, " _"]]  # the group of each value, by set


class Statistics(NamedTuple):
    """How intervals are made: level, bootstrap draws, seed of the draws."""

    confidence: float
    draws: int
    seed: int


class Metric(TypedDict):
    """A metric as JSON: its mean and interval (None where undefined), and a value a model, in order."""

    mean: float
    low: float | None
    high: float | None
    over: str
    by_seed: list[float]
    change: NotRequired[dict[str, float | str | None]]  # from another model, with its interval


Metrics = dict[str, dict[str, Metric]]  # by side and name


def entry(interval: Interval, by_seed: Sequence[float]) -> Metric:
    """Describe a metric of several models."""
    mean, low, high, over = interval
    return {"mean": mean, "low": low, "high": high, "over": over, "by_seed": [float(value) for value in by_seed]}


def describe(
    values: Parts,
    groups: Owners,
    confidence: float,
    base: Sequence[Float64[np.ndarray, "1 _"]] | None = None,
    *,
    share: bool = False,
) -> Metric:
    """Describe a metric that is a mean over sets of values of the mean in each, under several models (`mean_of_means`).

    With the values of a `base` model, `change` is the mean of x_ki - x_0i. The interval of a `share` is cut to [0, 1].
    """
    by_seed = np.mean([part.mean(axis=1) for part in values], axis=0)
    described = entry(mean_of_means(values, groups, confidence, share=share), by_seed.tolist())
    if base is not None:
        differences = [part - before for part, before in zip(values, base, strict=True)]
        described["change"] = mean_of_means(differences, groups, confidence)._asdict()
    return described


def classification_entries(
    ranks: Float64[np.ndarray, "seed n"],
    labels: Codes,
    groups: Codes,
    classes: int,
    confidence: float,
    base: Float64[np.ndarray, "1 n"] | None = None,
) -> dict[str, Metric]:
    """Make the metrics of a classifier under several models, each with its interval, and its change from `base`."""
    by_seed = [classification_metrics(row, labels, classes) for row in ranks]
    metrics: dict[str, Metric] = {}
    for k in TOP:
        if k <= classes:
            before = None if base is None else [hits_of(base, k)]
            metrics[f"acc{k}"] = describe([hits_of(ranks, k)], [groups], confidence, before, share=True)
    name, hits = "mean_per_class_recall", hits_of(ranks, 1)
    interval = class_mean(hits, labels, groups, confidence=confidence)
    sizes = np.unique(labels, return_counts=True)[1]
    trials = min(len(np.unique(groups)), int(len(sizes) ** 2 / (1 / sizes).sum()))  # of equal weight: C² / Σ 1 / n_c
    metrics[name] = entry(_within(interval, trials, confidence), [values[name] for values in by_seed])
    if base is not None:
        change = class_mean(hits - hits_of(base, 1), labels, groups, confidence=confidence)
        metrics[name]["change"] = change._asdict()
    return metrics


def hits_of(ranks: Float64[np.ndarray, "*seed n"], k: int) -> Float64[np.ndarray, "*seed n"]:
    """Return 1 for ranks of at most k, else 0."""
    return (ranks <= k).astype(np.float64)


def mean_of_means(parts: Parts, groups: Owners, confidence: float, *, share: bool = False) -> Interval:
    """Average the means of P sets of values, such as both directions of retrieval, with their common interval.

    mean over sets p of mean over the n_p values of x_pki. The influence of a value is (x_pki - mean of its set) / (P
    n_p); groups are the same in all sets. The interval of a `share` is cut to [0, 1].
    """
    count = len(parts)
    influence = np.hstack([(part - part.mean()) / (count * part.shape[1]) for part in parts])
    mean = sum(float(part.mean()) for part in parts) / count
    owners = np.concatenate([*groups])
    interval = crossed_interval(mean, influence, owners, confidence=confidence)
    return _within(interval, len(np.unique(owners)), confidence) if share else interval


def _within(interval: Interval, trials: int, confidence: float) -> Interval:
    """Cut an interval to [0, 1]; at 0 or 1, where nothing varies, take Clopper & Pearson's for so many trials."""
    if interval.low is None or interval.high is None:
        return interval
    if interval.mean in {0, 1}:
        low, high = beta_bounds(interval.mean * trials, trials, confidence)
        return interval._replace(low=low, high=high)
    return interval._replace(low=max(interval.low, 0.0), high=min(interval.high, 1.0))


def class_mean(
    values: Float64[np.ndarray, "seed n"], labels: Codes, groups: Codes, *, confidence: float = 0.95
) -> Interval:
    """Average within each class, then over classes and seeds, with the interval of `crossed_interval`.

    mean over seeds k of mean over classes c of mean over the n_c pairs i of c of x_ki. The C classes are fixed. With
    m_c their means over seeds, the influence of a pair is (x_ki - m_c) / (C n_c), times sqrt(n_c / (n_c - 1)) since m_c
    is estimated. A class with one pair has no spread of its own; its influence is taken about the mean of all classes.
    """
    values = checked_values(values, groups)
    check_same_length("values", values.shape[1], "labels", len(labels))
    of_class, sizes = np.unique(labels, return_inverse=True, return_counts=True)[1:]
    means = np.bincount(of_class, weights=values.mean(axis=0)) / sizes
    n = sizes[of_class]
    center = np.where(n > 1, means[of_class], means.mean())
    influence = (values - center) / (len(sizes) * n) * np.sqrt(n / np.maximum(n - 1, 1))
    return crossed_interval(float(means.mean()), influence, groups, confidence=confidence)
