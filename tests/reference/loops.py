"""Slow references of statistics and retrieval; those of the score itself ship in `loops_score`.

Plain loops over Python floats, written from the equations; no code in common with `clipmem.functional`.
"""

import math
import re
from collections.abc import Sequence
from math import fsum

from tests.reference.loops_score import Row, alignment, alignment_parts, clipmem, similarity

__all__ = [
    "alignment",
    "alignment_parts",
    "auroc",
    "auroc_variance",
    "clipmem",
    "near_captions",
    "recall",
    "retrieval_ranks",
    "superiority",
    "trimmed",
]


def _mean(values: Sequence[float]) -> float:
    return fsum(values) / len(values)


def superiority(a: Row, b: Row) -> float:
    """P(a > b) + ½ P(a = b), by counting all couples."""
    return _mean([1.0 if x > y else 0.5 if x == y else 0.0 for x in a for y in b])


def auroc(scores: Row, positive: Sequence[bool]) -> float:
    """Area under the ROC curve: how often a positive pair scores above another one, ties as a half."""
    chosen = [score for score, is_positive in zip(scores, positive, strict=True) if is_positive]
    rest = [score for score, is_positive in zip(scores, positive, strict=True) if not is_positive]
    return superiority(chosen, rest)


def auroc_variance(scores: Row, positive: Sequence[bool]) -> tuple[float, float]:
    """Variance of the AUROC (DeLong et al. 1988), var(V_i)/P + var(V_j)/Q, V a mean over the other class; its df."""
    chosen = [score for score, is_positive in zip(scores, positive, strict=True) if is_positive]
    rest = [score for score, is_positive in zip(scores, positive, strict=True) if not is_positive]
    of_chosen = [superiority([x], rest) for x in chosen]
    of_rest = [superiority(chosen, [y]) for y in rest]
    parts = [(_variance(of) / len(of), len(of) - 1) for of in (of_chosen, of_rest)]
    total = fsum(part for part, _ in parts)
    return total, total**2 / fsum(part**2 / df for part, df in parts)


def _variance(values: Sequence[float]) -> float:
    mean = _mean(values)
    return fsum((value - mean) ** 2 for value in values) / (len(values) - 1)


def retrieval_ranks(
    image: Sequence[Row], text: Sequence[Row], text_pair: Sequence[int], *, tie: float = 1e-12
) -> tuple[list[float], list[float]]:
    """Rank each caption's image and each image's best caption: 1 + better others + half of the equal others.

    Args:
        image: One embedding an image, any length, shape (n, d).
        text: Caption embeddings, any length, shape (m, d).
        text_pair: The image of each caption.
        tie: Similarities that differ by no more are equal.

    Returns:
        Ranks of images, one a caption; ranks of captions, one an image.
    """

    def lost(rivals: Sequence[float], own: float) -> float:
        return fsum(1.0 if rival > own + tie else 0.5 if rival >= own - tie else 0.0 for rival in rivals)

    image_ranks: list[float] = []
    for caption, i in zip(text, text_pair, strict=True):
        rivals = [similarity(other, caption) for j, other in enumerate(image) if j != i]
        image_ranks.append(1 + lost(rivals, similarity(image[i], caption)))
    text_ranks: list[float] = []
    for i, own_image in enumerate(image):
        both = [(similarity(own_image, caption), j) for caption, j in zip(text, text_pair, strict=True)]
        own = max(value for value, j in both if j == i)
        text_ranks.append(1 + lost([value for value, j in both if j != i], own))
    return image_ranks, text_ranks


def recall(ranks: Row, k: int) -> float:
    """Share of the queries whose rank is at most `k`."""
    return _mean([1.0 if rank <= k else 0.0 for rank in ranks])


def trimmed(values):
    """The 20 % trimmed mean of some numbers, and the influence of each on it."""
    n, ordered = len(values), sorted(values)
    cut = n // 5
    kept = ordered[cut : n - cut]
    clipped = [min(max(x, kept[0]), kept[-1]) for x in values]
    middle = sum(clipped) / n
    return sum(kept) / len(kept), [(x - middle) / len(kept) for x in clipped]


def near_captions(captions):
    """For each caption, how many others have a cosine of 0.8 or more with it, and the largest cosine."""
    texts = [caption.lower().strip() for caption in captions]
    words = [set(re.findall(r"[^\W_]+", text)) for text in texts]
    n, used = len(texts), {word: sum(word in one for one in words) for own in words for word in own}
    weight = {word: 0.0 if k > max(n / 10, 10) else math.log(n / k) for word, k in used.items()}
    counts, nearest = [], []
    for i in range(n):
        found = []
        for j in range(n):
            lengths = [math.sqrt(sum(weight[word] ** 2 for word in words[k])) for k in (i, j)]
            shared = sum(weight[word] ** 2 for word in words[i] & words[j])
            cosine = shared / (lengths[0] * lengths[1]) if min(lengths) > 0 else 0.0
            if i != j:
                found.append(1.0 if texts[i] == texts[j] else cosine)
        counts.append(sum(one >= 0.8 for one in found))
        nearest.append(max(found, default=0.0))
    return counts, nearest
