"""Reference implementations of the score as plain loops over Python floats, for tests.

They share no code with `clipmem.functional`, and take time proportional to pairs * bank pairs * captions. Rows are
sequences of floats; a pair has one or more views and one or more captions.
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
    """Average the similarities of one pair: views to captions, views to the bank, captions to the bank.

    positive = mean_{a,k} sim(I_a, T_k), image_bank = mean_{a,j} mean_k sim(I_a, t_jk), text_bank = mean_{k,j} mean_a
    sim(i_ja, T_k), over the bank's pairs j other than `member`, -1 for none (design, section 2); each in [-1, 1].
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
    """CLIPMem of each pair: mean over seeds of target[seed][pair] - mean over seeds of reference[seed][pair]."""
    pairs = range(len(target[0]))
    return [_mean([row[i] for row in target]) - _mean([row[i] for row in reference]) for i in pairs]
