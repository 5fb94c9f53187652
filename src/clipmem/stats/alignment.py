"""The alignment score: how well a model matches an image with its captions, compared with other pairs.

A(m; I, T) = mean_{a,k} sim(m(I_a), m(T_k)) - w [ mean_{a,j} sim(m(I_a), m(t_j)) + mean_{k,j} sim(m(i_j), m(T_k)) ]

with views I_a, captions T_k and a held-out bank of N pairs (i_j, t_j) that no compared model trained on (design,
section 2).

Do not compare alignments over different banks, views or captions. A single alignment is not memorization: an easy pair
aligns under every model. Only the difference between two models is informative.
"""

from math import isfinite
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from clipmem.base.errors import require
from clipmem.stats.tensor_checks import check_index, check_means

_ENLARGE = "Enlarge the bank: a pair is never in its own bank."
Rows = Float[Tensor, "n d"]
BankRows = Float[Tensor, "N d"]


class AlignmentParts(NamedTuple):
    """The three means of the alignment score, ū·v̄, ū·t̄ and ī·v̄, float64, each in [-1, 1], shape (n,)."""

    positive: Float[Tensor, " n"]
    image_bank: Float[Tensor, " n"]
    text_bank: Float[Tensor, " n"]


def _check_member(member: Int[Tensor, " rows"], n: int, bank: int) -> None:
    """Check each pair's row in the bank (-1: none), and that no pair is the whole bank."""
    hint = "Give each pair its row in the bank, or -1."
    require(len(member) == n, "member", f"{len(member)} values for {n} pairs", "one value a pair", hint)
    check_index("member", member, -1, bank, hint)
    alone = bank == 1 and bool((member >= 0).any())
    require(not alone, "bank", "one pair, which is itself to be scored", "another pair in the bank", _ENLARGE)


def alignment_parts(
    image: Rows, text: Rows, bank_image: BankRows, bank_text: BankRows, *, member: Int[Tensor, " n"] | None = None
) -> AlignmentParts:
    """Compute the parts of the alignment score from pair means, in O((n + N) d).

    positive = ū·v̄, image_bank = ū·t̄, text_bank = ī·v̄, where t̄ and ī are means over the bank's pairs (each pair has
    the same weight, whatever its number of captions). A pair in the bank is excluded from its own bank: ū·t̄ becomes
    (N ū·t̄ - ū·t_own) / (N - 1).

    Args:
        image: ū of the pairs, from `pair_means`, shape (n, d).
        text: v̄ of the pairs, shape (n, d).
        bank_image: ū of the bank's pairs, shape (N, d), N >= 1.
        bank_text: v̄ of the bank's pairs, shape (N, d).
        member: Row of each pair in the bank, -1 if it is not in the bank, shape (n,). None: no pair is.

    Returns:
        The parts, float64, each in [-1, 1], shape (n,).

    Raises:
        InputError: The bank is empty, or empty without the pair itself; shapes differ; a row is not finite or longer
            than 1 (not a mean of unit vectors); `member` is out of range.

    Example:
        >>> east, north = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
        >>> [part.item() for part in alignment_parts(east, east, north, east)]
        [1.0, 1.0, 0.0]
    """
    (n, d), bank = image.shape, len(bank_image)
    require(bank > 0, "bank", "no pair", "at least one pair", "Hold out some pairs as the bank.")
    sides = {"image": (image, n), "text": (text, n), "bank_image": (bank_image, bank), "bank_text": (bank_text, bank)}
    for name, (means, rows) in sides.items():
        check_means(name, means, (rows, d))
    bank_image, bank_text = bank_image.double(), bank_text.double()
    parts = alignment_parts_against(image, text, BankMeans(bank_image.mean(dim=0), bank_text.mean(dim=0), bank))
    if member is not None:
        _check_member(member, n, bank)
        inside = torch.nonzero(member >= 0)[:, 0]
        others = member[inside].long()
        for part, pairs, of_bank in ((parts.image_bank, image, bank_text), (parts.text_bank, text, bank_image)):
            product = (pairs[inside].double() * of_bank[others]).sum(dim=-1)
            part[inside] = (bank * part[inside] - product) / max(bank - 1, 1)
    return parts


class BankMeans(NamedTuple):
    """A bank's means ī and t̄ of ū and v̄ over its pairs, and its number of pairs."""

    image: Float[Tensor, " d"]
    text: Float[Tensor, " d"]
    pairs: int


def alignment_parts_against(
    image: Rows, text: Rows, bank: BankMeans, *, inside: Bool[Tensor, " n"] | None = None
) -> AlignmentParts:
    """Compute the parts of the alignment score from the means of a bank, in O(n d).

    Arguments, result and errors are those of `alignment_parts`; `inside` marks the pairs in the bank, shape (n,). For
    these, ū·t̄ becomes (N ū·t̄ - ū·v̄) / (N - 1), and ī·v̄ likewise. Rows are computed independently: the result is
    bitwise the same for any division into blocks.

    Example:
        >>> east, north = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
        >>> bank = BankMeans(image=north[0], text=east[0], pairs=5)
        >>> [part.item() for part in alignment_parts_against(east, east, bank)]
        [1.0, 1.0, 0.0]
    """
    n, d = image.shape
    require(bank.pairs > 0, "bank", "no pair", "at least one pair", "Hold out some pairs as the bank.")
    check_means("image", image, (n, d))
    check_means("text", text, (n, d))
    check_means("bank means", torch.stack([bank.image, bank.text]), (2, d))
    image, text = image.double(), text.double()
    # not a matrix product: its order of summation depends on the number of rows
    positive = (image * text).sum(dim=-1)
    image_bank = (image * bank.text.double()).sum(dim=-1)
    text_bank = (text * bank.image.double()).sum(dim=-1)
    if inside is not None:
        _check_member(torch.where(inside, 0, -1), n, bank.pairs)
        reduced = [(bank.pairs * part - positive) / max(bank.pairs - 1, 1) for part in (image_bank, text_bank)]
        image_bank, text_bank = (
            torch.where(inside, without, part) for without, part in zip(reduced, (image_bank, text_bank), strict=True)
        )
    return AlignmentParts(positive, image_bank, text_bank)


def alignment(parts: AlignmentParts, *, weight: float = 1.0) -> Float[Tensor, " n"]:
    """Combine the parts into the alignment score.

    A = positive - w (image_bank + text_bank) (design, section 2), in [-1 - 2w, 1 + 2w]. Higher is better aligned.

    Args:
        parts: From `alignment_parts`, each of shape (n,).
        weight: w >= 0. 1 is the definition; 0 gives the plain similarity of the pair.

    Returns:
        Alignment of each pair, float64, shape (n,).

    Raises:
        InputError: The weight is negative or not finite.
    """
    hint = "Use 1, the weight of the definition."
    require(isfinite(weight) and weight >= 0, "weight", f"{weight}", "a finite number, 0 or more", hint)
    positive, image_bank, text_bank = (part.double() for part in parts)
    return positive - weight * (image_bank + text_bank)
