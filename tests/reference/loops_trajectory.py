"""Slow references of trajectories and of the estimators that read them."""

import math
from collections.abc import Sequence

Rows = Sequence[Sequence[float]]


def cosine(a: Sequence[float], b: Sequence[float]) -> float:
    """Cosine of two vectors."""
    dot = math.fsum(x * y for x, y in zip(a, b, strict=True))
    return dot / math.sqrt(math.fsum(x * x for x in a) * math.fsum(y * y for y in b))


def batch_values(image: Rows, text: Rows) -> tuple[list[float], list[float]]:
    """Similarity and margin of each pair of a batch; the margin of a batch of one is NaN."""
    similarity: list[float] = []
    margin: list[float] = []
    for i in range(len(image)):
        own = cosine(image[i], text[i])
        others = [cosine(image[i], text[j]) for j in range(len(text)) if j != i]
        others += [cosine(image[j], text[i]) for j in range(len(image)) if j != i]
        similarity.append(own)
        margin.append(own - max(others) if others else math.nan)
    return similarity, margin


def mean_margins(margin: Rows) -> list[float]:
    """Mean over the epochs with a margin, of each pair."""
    means: list[float] = []
    for i in range(len(margin[0])):
        known = [row[i] for row in margin if not math.isnan(row[i])]
        means.append(math.fsum(known) / len(known) if known else math.nan)
    return means


def in_minus_out(alignment: Rows, member: Sequence[Sequence[bool]]) -> list[float]:
    """Mean over the models with the pair minus the mean over those without; NaN if there is no model of a kind."""
    scores: list[float] = []
    for i in range(len(alignment[0])):
        sides = [[a[i] for a, m in zip(alignment, member, strict=True) if m[i] is side] for side in (True, False)]
        means = [math.fsum(side) / len(side) if side else math.nan for side in sides]
        scores.append(means[0] - means[1])
    return scores
