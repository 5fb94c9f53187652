"""Slow references of utility: zero-shot classification, its metrics, logistic regression, chance of retrieval.

As `tests.reference.loops`: plain loops over Python floats, written from the equations, for tests. The regression
goes downhill in small steps, and takes thousands of them.
"""

from collections.abc import Sequence
from math import comb, exp, fsum, log, sqrt

from tests.reference.loops_score import Row, similarity


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


def right_items(image_names: Sequence[str], captions: Sequence[Sequence[str]]) -> tuple[list[set[str]], list[set[str]]]:
    """Return the right images of each caption (pair by pair), and the right captions of each image, by name.

    A caption's images are those of all pairs that have it; an image's captions are those of all pairs with this image.
    """
    of_captions = [
        {name for name, other in zip(image_names, captions, strict=True) if caption in other}
        for own in captions
        for caption in own
    ]
    of_images = [
        {caption for other, own in zip(image_names, captions, strict=True) if other == name for caption in own}
        for name in image_names
    ]
    return of_captions, of_images


def search(
    queries: Sequence[Row], items: Sequence[Row], names: Sequence[str], right: Sequence[set[str]], *, tie: float = 1e-12
) -> tuple[list[float], list[float]]:
    """Rank the best right item of each query among the wrong ones, and average the precision at each right item.

    Items of one name are one item, the most similar. Level items share the mean of their places: the place of r is 1 +
    the better ones + half of the other level ones.
    """

    def place(values: Sequence[float], own: float) -> float:
        better = sum(value > own + tie for value in values)
        level = sum(own - tie <= value <= own + tie for value in values)
        return 1 + better + (level - 1) / 2

    ranks: list[float] = []
    precisions: list[float] = []
    for query, own in zip(queries, right, strict=True):
        best: dict[str, float] = {}
        for item, name in zip(items, names, strict=True):
            best[name] = max(best.get(name, -2.0), similarity(query, item))
        good = [best[name] for name in own]
        ranks.append(place([max(good), *(value for name, value in best.items() if name not in own)], max(good)))
        precisions.append(fsum(place(good, one) / place([*best.values()], one) for one in good) / len(good))
    return ranks, precisions


def alignment_loss(image: Sequence[Row], text: Sequence[Row], text_pair: Sequence[int]) -> float:
    """Average the squared distances of unit image and unit captions within pairs, then over pairs."""
    found: list[float] = []
    for i, row in enumerate(image):
        own = [_squared_distance(row, other) for other, k in zip(text, text_pair, strict=True) if k == i]
        found.append(fsum(own) / len(own))
    return fsum(found) / len(found)


def uniformity_loss(rows: Sequence[Row]) -> float:
    """Return the log of the mean of exp(-2 d²) over all couples of different rows (Wang & Isola 2020)."""
    couples = [exp(-2 * _squared_distance(a, b)) for i, a in enumerate(rows) for b in rows[:i]]
    return log(fsum(couples) / len(couples))


def _squared_distance(a: Row, b: Row) -> float:
    length_a, length_b = (sqrt(fsum(value * value for value in row)) for row in (a, b))
    return fsum((x / length_a - y / length_b) ** 2 for x, y in zip(a, b, strict=True))
