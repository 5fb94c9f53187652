"""Ranks of the true class and metrics from ranks, for zero-shot classification and the linear probe.

When not to trust it: accuracy is dominated by frequent classes. With 90% of the images in one class, always predicting
that class has accuracy 0.9; its mean per-class recall is 1 / classes.
"""

import numpy as np
from jaxtyping import Float, Float64, Int

from clipmem.base.require import require
from clipmem.stats.checks import check_not_empty, check_same_length

TOP = (1, 5)

# equal scores may differ by rounding
_TIE = 1e-12


def class_ranks(scores: Float[np.ndarray, "n c"], labels: Int[np.ndarray, " n"]) -> Float64[np.ndarray, " n"]:
    """Rank the true class of each image by its score.

    rank = 1 + #{classes that score higher} + ½ #{other classes that score the same}.
    """
    check_same_length("scores", len(scores), "labels", len(labels))
    check_labels(labels, scores.shape[1], lowest=-1)
    if scores.shape[1] == 0:
        return np.full(len(labels), np.inf)
    lead = scores - np.take_along_axis(scores, np.maximum(labels, 0)[:, None], axis=1)
    better, level = (lead > _TIE).sum(axis=1), (np.abs(lead) <= _TIE).sum(axis=1)
    return np.where(labels < 0, np.inf, 1 + better + (level - 1) / 2)


def check_labels(labels: Int[np.ndarray, " n"], classes: int, *, lowest: int = 0) -> None:
    """Raise an `InputError` unless every label is in [lowest, classes)."""
    outside = np.flatnonzero((labels < lowest) | (labels >= classes))
    got = f"{labels[outside[:1]].tolist()} in row {outside[:1].tolist()}"
    expected = f"class numbers from 0 to {classes - 1}"
    require(not len(outside), "labels", got, expected, "Number the classes from 0.")


def classification_metrics(
    ranks: Float[np.ndarray, " n"], labels: Int[np.ndarray, " n"], classes: int
) -> dict[str, float]:
    """Compute the metrics of CLIP_benchmark from ranks.

    acc_k = share of images whose true class has a rank of at most k (for at least k classes).
    mean_per_class_recall = mean over classes with images of acc1 within the class.
    """
    check_not_empty("ranks", np.asarray(ranks, dtype=np.float64))
    check_same_length("ranks", len(ranks), "labels", len(labels))
    check_labels(labels, classes)
    hits = (ranks <= 1).astype(np.float64)
    images = np.bincount(labels, minlength=classes)
    right = np.bincount(labels, weights=hits, minlength=classes)
    found: dict[str, float] = {f"acc{k}": float((ranks <= k).mean()) for k in TOP if k <= classes}
    return {**found, "mean_per_class_recall": float((right[images > 0] / images[images > 0]).mean())}


def chance(classes: int) -> dict[str, float]:
    """Return the metrics expected of random predictions: k / classes, and 1 / classes for the mean recall."""
    found = {f"acc{k}": k / classes for k in TOP if k <= classes}
    return {**found, "mean_per_class_recall": 1 / classes}
