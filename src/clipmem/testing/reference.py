"""Slow references: each score written from its equation as plain loops over Python floats (float64).

They are for tests, also yours: lay one beside the equation, then compare what you wrote with it. They share
no code with `clipmem.functional`. Do not use them for work: most take time that grows with pairs times bank
pairs times captions.

Rows are sequences of floats. A pair's images are a list of views, its captions a list of captions, each at
least one.
"""

from collections.abc import Sequence
from math import fsum, sqrt

Row = Sequence[float]


def _mean(values: Sequence[float]) -> float:
    return fsum(values) / len(values)


def similarity(x: Row, y: Row) -> float:
    """Cosine of two rows: Σ x_i y_i / (||x|| ||y||)."""
    length_x = sqrt(fsum(value * value for value in x))
    length_y = sqrt(fsum(value * value for value in y))
    return fsum(a * b for a, b in zip(x, y, strict=True)) / (length_x * length_y)


def alignment_parts(
    views: Sequence[Row],
    captions: Sequence[Row],
    bank_views: Sequence[Sequence[Row]],
    bank_captions: Sequence[Sequence[Row]],
    *,
    member: int = -1,
) -> tuple[float, float, float]:
    """Average the similarities of one pair: views with captions, views with the bank, the bank with captions.

    positive = mean_{a,k} sim(I_a, T_k), image_bank = mean_{a,j} mean_k sim(I_a, t_jk), text_bank = mean_{k,j}
    mean_a sim(i_ja, T_k), over the bank's pairs j other than `member` (design, section 2).

    Args:
        views: The pair's image embeddings, any length, shape (view, d).
        captions: The pair's caption embeddings, shape (captions, d).
        bank_views: For each bank pair its image embeddings.
        bank_captions: For each bank pair its caption embeddings.
        member: Row of the pair in the bank, or -1 when it is not in it.

    Returns:
        (positive, image_bank, text_bank), each in [-1, 1].
    """
    positive = _mean([similarity(view, caption) for view in views for caption in captions])
    bank = [j for j in range(len(bank_views)) if j != member]
    image_bank = _mean(
        [_mean([similarity(view, caption) for caption in bank_captions[j]]) for view in views for j in bank]
    )
    text_bank = _mean(
        [_mean([similarity(view, caption) for view in bank_views[j]]) for caption in captions for j in bank]
    )
    return positive, image_bank, text_bank


def alignment(
    views: Sequence[Row],
    captions: Sequence[Row],
    bank_views: Sequence[Sequence[Row]],
    bank_captions: Sequence[Sequence[Row]],
    *,
    member: int = -1,
    weight: float = 1.0,
) -> float:
    """Alignment of one pair: positive - w (image_bank + text_bank); arguments as for `alignment_parts`."""
    positive, image_bank, text_bank = alignment_parts(views, captions, bank_views, bank_captions, member=member)
    return positive - weight * (image_bank + text_bank)


def clipmem(target: Sequence[Row], reference: Sequence[Row]) -> list[float]:
    """CLIPMem of each pair: mean over seeds of target[seed][pair] less that of reference[seed][pair]."""
    pairs = range(len(target[0]))
    return [_mean([row[i] for row in target]) - _mean([row[i] for row in reference]) for i in pairs]


def superiority(a: Row, b: Row) -> float:
    """P(a > b) + ½ P(a = b), by counting all couples."""
    return _mean([1.0 if x > y else 0.5 if x == y else 0.0 for x in a for y in b])


def auroc(scores: Row, positive: Sequence[bool]) -> float:
    """Area under the ROC curve: how often a positive pair scores above another one, ties as a half."""
    chosen = [score for score, is_positive in zip(scores, positive, strict=True) if is_positive]
    rest = [score for score, is_positive in zip(scores, positive, strict=True) if not is_positive]
    return superiority(chosen, rest)


def auroc_variance(scores: Row, positive: Sequence[bool]) -> float:
    """Variance of the AUROC (DeLong et al. 1988): var(V_i)/P + var(V_j)/Q, V a mean over the other class."""
    chosen = [score for score, is_positive in zip(scores, positive, strict=True) if is_positive]
    rest = [score for score, is_positive in zip(scores, positive, strict=True) if not is_positive]
    of_chosen = [superiority([x], rest) for x in chosen]
    of_rest = [superiority(chosen, [y]) for y in rest]
    return _variance(of_chosen) / len(chosen) + _variance(of_rest) / len(rest)


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
    for i, picture in enumerate(image):
        both = [(similarity(picture, caption), j) for caption, j in zip(text, text_pair, strict=True)]
        own = max(value for value, j in both if j == i)
        text_ranks.append(1 + lost([value for value, j in both if j != i], own))
    return image_ranks, text_ranks


def recall(ranks: Row, k: int) -> float:
    """Share of the queries whose rank is at most `k`."""
    return _mean([1.0 if rank <= k else 0.0 for rank in ranks])
