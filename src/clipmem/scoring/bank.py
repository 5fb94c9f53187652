"""Sums over a bank of any size, accumulated block by block.

The sums are fixed-point integers, so that neither blocks nor the order of records change a score. The error of a mean
is at most 2^-37 (7e-12); a bank can have 2^26 pairs.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from clipmem.base.errors import require
from clipmem.stats.alignment import BankMeans

_UNIT = 2.0**36
MOST = 2**26  # 2^36 * 2^26 is below 2^63, also for means slightly longer than 1


class BankSums(NamedTuple):
    """Sums over some of the bank's pairs, in units of 2^-36.

    Attributes:
        image: Σ ū, shape (d,).
        text: Σ v̄, shape (d,).
        own: Σ of the alignment's positive part, of ū·ū and of v̄·v̄, shape (3,).
        pairs: Number of pairs, shape (1,).
    """

    image: Int[Tensor, " d"]
    text: Int[Tensor, " d"]
    own: Int[Tensor, "3"]
    pairs: Int[Tensor, "1"]

    @property
    def means(self) -> BankMeans:
        """ī, t̄ and the number of pairs, at least 1."""
        count = int(self.pairs)
        return BankMeans(self.image.double() / _UNIT / count, self.text.double() / _UNIT / count, count)

    @property
    def mean_positive(self) -> Float[Tensor, "1"]:
        """Mean of the alignment's positive part over the bank's own pairs, shape (1,)."""
        return self.own[:1].double() / _UNIT / int(self.pairs)

    @property
    def mean_squares(self) -> Float[Tensor, "2"]:
        """Means of ū·ū and of v̄·v̄, shape (2,)."""
        return self.own[1:].double() / _UNIT / int(self.pairs)


def bank_sums(
    image: Float[Tensor, "n d"], text: Float[Tensor, "n d"], positive: Float[Tensor, " n"], ok: Bool[Tensor, " n"]
) -> BankSums:
    """Sum over the pairs that are `ok`.

    Example:
        >>> u = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
        >>> bank = bank_sums(u, u, torch.ones(2), torch.tensor([True, True])).means
        >>> bank.image.tolist(), bank.text.tolist(), bank.pairs
        ([0.5, 0.5], [0.5, 0.5], 2)
    """
    u, v = image[ok].double(), text[ok].double()
    own = torch.stack([positive[ok].double(), u.square().sum(dim=-1), v.square().sum(dim=-1)], dim=1)
    image_sum, text_sum, own_sum = ((values * _UNIT).round().long().sum(dim=0) for values in (u, v, own))
    return BankSums(image_sum, text_sum, own_sum, ok.sum().reshape(1))


def add(sums: list[BankSums]) -> BankSums:
    """Add the sums of all blocks."""
    total = BankSums(*(torch.stack(values).sum(dim=0) for values in zip(*sums, strict=True)))
    require(int(total.pairs) <= MOST, "bank", f"{int(total.pairs):,} pairs", f"at most {MOST:,}", "Use fewer pairs.")
    return total
