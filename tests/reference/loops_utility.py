"""Slow references of utility: zero-shot classification, its metrics, logistic regression, chance of retrieval.

As `tests.reference.loops`: plain loops over Python floats, written from the equations, for tests. The regression
goes downhill in small steps, and takes thousands of them.
"""

from collections.abc import Sequence
from math import comb, exp, fsum, sqrt

from clipmem.testing.reference import Row, similarity


def class_embeddings(text: Sequence[Row], prompt_class: Sequence[int], classes: int) -> list[list[float]]:
    """Average the unit prompts of each class and bring the mean to length 1 (Radford et al. 2021, section 3.1.4)."""

    def unit(row: Row) -> list[float]:
        length = sqrt(fsum(value * value for value in row))
        return [value / length for value in row]

    found: list[list[float]] = []
    for c in range(classes):
        own = [unit(row) for row, k in zip(text, prompt_class, strict=True) if k == c]
        found.append(unit([fsum(column) / len(own) for column in zip(*own, strict=True)]))
    return found


def zero_shot_ranks(
    image: Sequence[Row], classes: Sequence[Row], labels: Sequence[int], *, tie: float = 1e-12
) -> list[float]:
    """Count the classes that lie nearer to each image than its own, and half of those that lie as near."""
    ranks: list[float] = []
    for row, label in zip(image, labels, strict=True):
        own = similarity(row, classes[label])
        rivals = [similarity(row, other) for c, other in enumerate(classes) if c != label]
        ranks.append(1 + fsum(1.0 if rival > own + tie else 0.5 if rival >= own - tie else 0.0 for rival in rivals))
    return ranks


def classification_metrics(ranks: Row, labels: Sequence[int]) -> dict[str, float]:
    """Count the images whose class is first, or among the first five, and average over the classes that occur."""
    recalls: list[float] = []
    for c in sorted(set(labels)):
        own = [rank for rank, label in zip(ranks, labels, strict=True) if label == c]
        recalls.append(sum(rank <= 1 for rank in own) / len(own))
    return {
        "acc1": sum(rank <= 1 for rank in ranks) / len(ranks),
        "acc5": sum(rank <= 5 for rank in ranks) / len(ranks),
        "mean_per_class_recall": fsum(recalls) / len(recalls),
    }


def logistic_regression(
    features: Sequence[Row], labels: Sequence[int], classes: int, c: float, *, step: float, steps: int
) -> tuple[list[list[float]], list[float]]:
    """Minimize C Σ_i -log softmax(W x_i + b)_{y_i} + ½ ||W||² from zero, by gradient steps of one size.

    Returns:
        Weights, shape (classes, d), and intercepts, shape (classes,).
    """
    width = len(features[0])
    weights, intercepts = [[0.0] * width for _ in range(classes)], [0.0] * classes
    for _ in range(steps):
        slopes, lifts = [list(row) for row in weights], [0.0] * classes
        for x, y in zip(features, labels, strict=True):
            scores = [fsum(w * v for w, v in zip(weights[k], x, strict=True)) + intercepts[k] for k in range(classes)]
            parts = [exp(score - max(scores)) for score in scores]
            for k in range(classes):
                error = c * (parts[k] / fsum(parts) - (k == y))
                lifts[k] += error
                for axis in range(width):
                    slopes[k][axis] += error * x[axis]
        for k in range(classes):
            intercepts[k] -= step * lifts[k]
            for axis in range(width):
                weights[k][axis] -= step * slopes[k][axis]
    return weights, intercepts


def text_recall_by_chance(captions: Sequence[int], k: int) -> float:
    """Average, over images, the probability that one of its captions is among the first k of all in random order."""
    every = sum(captions)
    missed = [comb(every - own, k) / comb(every, k) if k <= every else 0.0 for own in captions]
    return fsum(1 - one for one in missed) / len(captions)
