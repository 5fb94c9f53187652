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


def rises(similarity: Rows) -> list[float]:
    """Similarity of the last epoch minus that of the last warm-up epoch, of each pair; below 0 counts as 0."""
    warm_up = max(1, len(similarity) // 4)
    values: list[float] = []
    for i in range(len(similarity[0])):
        before, after = similarity[warm_up - 1][i], similarity[-1][i]
        shown = not (math.isnan(before) or math.isnan(after))
        values.append(max(after, 0.0) - max(before, 0.0) if shown else math.nan)
    return values


def in_minus_out(alignment: Rows, member: Sequence[Sequence[bool]]) -> tuple[list[float], list[list[float]]]:
    """Mean over complementary models 2k, 2k + 1 of A with the pair minus A without it, and what it is the mean of."""
    scores: list[float] = []
    of_pairs: list[list[float]] = []
    for i in range(len(alignment[0])):
        effects = [
            alignment[k][i] - alignment[k + 1][i] if member[k][i] else alignment[k + 1][i] - alignment[k][i]
            for k in range(0, len(alignment), 2)
        ]
        scores.append(math.fsum(effects) / len(effects))
        of_pairs.append(effects)
    return scores, of_pairs
