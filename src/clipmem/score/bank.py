"""A bank of any size as sums: all that scoring against it needs, added up block by block.

The sums are whole numbers (fixed point), because those add up to the same in any order: neither the blocks nor the
order of the records can change a score. A mean is off by at most 2^-37, about 7e-12, and a bank may have 2^26 pairs.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from clipmem.base.errors import InputError
from clipmem.functional import AlignmentParts, BankMeans

_UNIT = 2.0**36
MOST = 2**26  # 2^36 * 2^26 stays below 2^63, also for means that are a little longer than 1


class BankSums(NamedTuple):
    """Sums over some of the bank's pairs, in units of 2^-36.

    Attributes:
        image: Σ ū, shape (d,).
        text: Σ v̄, shape (d,).
        positive: Σ ū·v̄, shape (1,).
        pairs: How many pairs, shape (1,).
    """

    image: Int[Tensor, "d"]
    text: Int[Tensor, "d"]
    positive: Int[Tensor, "1"]
    pairs: Int[Tensor, "1"]


def bank_sums(image: Float[Tensor, "n d"], text: Float[Tensor, "n d"], ok: Bool[Tensor, "n"]) -> BankSums:
    """Add up ū, v̄ and ū·v̄ over the pairs that are `ok`.

    Args:
        image: ū, lengths in [0, 1], shape (n, d).
        text: v̄, shape (n, d).
        ok: Which pairs count, shape (n,).

    Example:
        >>> u = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
        >>> bank = bank_means(bank_sums(u, u, torch.tensor([True, True])))
        >>> bank.image.tolist(), bank.text.tolist(), bank.pairs
        ([0.5, 0.5], [0.5, 0.5], 2)
    """
    u, v = image[ok].double(), text[ok].double()
    whole = [(values * _UNIT).round().long() for values in (u, v, (u * v).sum(dim=-1, keepdim=True))]
    image_sum, text_sum, positive = (values.sum(dim=0) for values in whole)
    return BankSums(image_sum, text_sum, positive, ok.sum().reshape(1))


def add(sums: list[BankSums]) -> BankSums:
    """Add up the sums of all blocks.

    Raises:
        InputError: The bank has more than 2^26 pairs.
    """
    total = BankSums(*(torch.stack(values).sum(dim=0) for values in zip(*sums, strict=True)))
    if int(total.pairs) > MOST:
        raise InputError("bank", got=f"{int(total.pairs):,} pairs", expected=f"at most {MOST:,}", hint="Take fewer.")
    return total


def bank_means(sums: BankSums) -> BankMeans:
    """Divide the sums by the number of pairs, which is at least 1."""
    count = int(sums.pairs)
    return BankMeans(sums.image.double() / _UNIT / count, sums.text.double() / _UNIT / count, count)


def bank_alignment(sums: BankSums) -> AlignmentParts | None:
    """Average the alignment parts of the bank's own pairs, each against the others: the control of a score.

    With P the mean of ū·v̄: positive = P, image_bank = text_bank = (N ī·t̄ - P) / (N - 1), because Σ ū·t̄ = N ī·t̄.

    Returns:
        The mean parts, shape (1,), or None for a bank of one pair.
    """
    means = bank_means(sums)
    if means.pairs < 2:
        return None
    positive = sums.positive.double() / _UNIT / means.pairs
    other = (means.pairs * (means.image * means.text).sum() - positive) / (means.pairs - 1)
    return AlignmentParts(positive, other, other.clone())
