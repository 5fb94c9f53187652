"""The alignment score: how well a model matches an image with its captions, above anything else.

A(m; I, T) = mean_{a,k} sim(m(I_a), m(T_k)) - w [ mean_{a,j} sim(m(I_a), m(t_j)) + mean_{k,j} sim(m(i_j),
m(T_k)) ]

with views I_a, captions T_k and a held-out bank of N pairs (i_j, t_j) that no compared model trained on
(design, section 2).

Do not compare alignments of models that were given different banks, views or captions, and do not read a
single alignment as memorization: an easy pair aligns under every model. Only the difference of two models
says something.
"""

from math import isfinite
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from clipmem.base.errors import InputError

LONGEST = 1.01  # a mean of unit vectors is never longer than 1; the rest is for embeddings stored in half precision


class AlignmentParts(NamedTuple):
    """The three means of the alignment score, float64, each in [-1, 1], shape (n,).

    Attributes:
        positive: ū·v̄, the pair's images with the pair's captions.
        image_bank: ū·t̄, the pair's images with the bank's captions.
        text_bank: ī·v̄, the bank's images with the pair's captions.
    """

    positive: Float[Tensor, "n"]
    image_bank: Float[Tensor, "n"]
    text_bank: Float[Tensor, "n"]


def _check_means(name: str, means: Tensor, shape: tuple[int, ...]) -> None:
    if means.shape != shape:
        raise InputError(
            name,
            got=f"shape {tuple(means.shape)}",
            expected=f"shape {shape}",
            hint="Take images and captions, pairs and bank from the same model, one row a pair.",
        )
    # Written so that NaN is caught too: no comparison with NaN holds.
    wrong = ~(torch.linalg.vector_norm(means.double(), dim=-1) <= LONGEST)
    if bool(wrong.any()):
        first = int(torch.nonzero(wrong)[0])
        raise InputError(
            name,
            got=f"{int(wrong.sum())} of {len(means)} rows not finite or longer than 1, first row {first}",
            expected="means of unit vectors",
            hint="Make them with clipmem.functional.pair_means.",
        )


class MemberWords(NamedTuple):
    """How messages name the held-out pairs: the argument, where a pair's row is, a row, another pair, what to do."""

    argument: str
    place: str
    row: str
    another: str
    hint: str


_BANK = MemberWords(
    "bank",
    "in the bank",
    "a bank row",
    "another pair in the bank",
    "Enlarge the bank: a pair is never in its own bank.",
)


def check_member(member: Int[Tensor, "rows"], n: int, bank: int, words: MemberWords = _BANK) -> None:
    """Check which of n pairs are which of the held-out pairs.

    Args:
        member: Row of each pair among the held-out pairs, -1 for those that are not among them.
        n: Number of pairs.
        bank: Number of held-out pairs.
        words: How to name them.

    Raises:
        InputError: There is not one value a pair, a row is out of range, or a pair would be compared with itself alone.
    """
    hint = f"Give each pair its row {words.place}, or -1."
    if len(member) != n:
        raise InputError("member", got=f"{len(member)} values for {n} pairs", expected="one value a pair", hint=hint)
    outside = (member < -1) | (member >= bank)
    if bool(outside.any()):
        row = int(torch.nonzero(outside)[0])
        raise InputError(
            "member",
            got=f"{int(member[row])} for pair {row}",
            expected=f"-1, or {words.row} from 0 to {bank - 1}",
            hint=hint,
        )
    if bank == 1 and bool((member >= 0).any()):
        raise InputError(
            words.argument, got="one pair, which is itself to be scored", expected=words.another, hint=words.hint
        )


def alignment_parts(
    image: Float[Tensor, "n d"],
    text: Float[Tensor, "n d"],
    bank_image: Float[Tensor, "N d"],
    bank_text: Float[Tensor, "N d"],
    *,
    member: Int[Tensor, "n"] | None = None,
) -> AlignmentParts:
    """Compute the parts of the alignment score from pair means, in O((n + N) d).

    positive = ū·v̄, image_bank = ū·t̄, text_bank = ī·v̄, where t̄ and ī are means over the bank's pairs (each
    pair weighs the same however many captions it has). A pair that is itself in the bank is left out of its
    own bank: ū·t̄ becomes (N ū·t̄ - ū·t_own) / (N - 1).

    Args:
        image: ū of the pairs, from `pair_means`, shape (n, d).
        text: v̄ of the pairs, shape (n, d).
        bank_image: ū of the bank's pairs, shape (N, d), N >= 1.
        bank_text: v̄ of the bank's pairs, shape (N, d).
        member: Row of each pair in the bank, or -1 where it is not in it, shape (n,). None: no pair is.

    Returns:
        The parts, float64, each in [-1, 1], shape (n,).

    Raises:
        InputError: The bank is empty, or empty once the pair itself is left out; shapes differ; a row is
            longer than 1 or not finite (it is no mean of unit vectors); `member` is out of range.

    Example:
        >>> east, north = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
        >>> [part.item() for part in alignment_parts(east, east, north, east)]
        [1.0, 1.0, 0.0]
    """
    n, d = image.shape
    bank = len(bank_image)
    if bank == 0:
        raise InputError("bank", got="no pair", expected="at least one pair", hint="Hold out some pairs as the bank.")
    _check_means("image", image, (n, d))
    _check_means("text", text, (n, d))
    _check_means("bank_image", bank_image, (bank, d))
    _check_means("bank_text", bank_text, (bank, d))
    image, text = image.double(), text.double()
    image_bank = image @ bank_text.double().mean(dim=0)
    text_bank = text @ bank_image.double().mean(dim=0)
    if member is not None:
        check_member(member, n, bank)
        inside = torch.nonzero(member >= 0)[:, 0]
        own = member[inside].long()
        own_text = (image[inside] * bank_text[own].double()).sum(dim=-1)
        own_image = (text[inside] * bank_image[own].double()).sum(dim=-1)
        if inside.numel():
            image_bank[inside] = (bank * image_bank[inside] - own_text) / (bank - 1)
            text_bank[inside] = (bank * text_bank[inside] - own_image) / (bank - 1)
    return AlignmentParts((image * text).sum(dim=-1), image_bank, text_bank)


class BankMeans(NamedTuple):
    """A bank as far as a score needs it, whatever its size.

    Attributes:
        image: ī, the mean over the bank's pairs of ū, shape (d,).
        text: t̄, the mean of v̄, shape (d,).
        pairs: How many pairs it has.
    """

    image: Float[Tensor, "d"]
    text: Float[Tensor, "d"]
    pairs: int


def alignment_parts_against(
    image: Float[Tensor, "n d"],
    text: Float[Tensor, "n d"],
    bank: BankMeans,
    *,
    inside: Bool[Tensor, "n"] | None = None,
) -> AlignmentParts:
    """Compute the parts of the alignment score against a bank of which only the means are known, in O(n d).

    The parts are those of `alignment_parts`. A pair inside the bank is left out of it: its own row there is the pair
    itself, so ū·t̄ becomes (N ū·t̄ - ū·v̄) / (N - 1), and ī·v̄ likewise. Each row is computed by itself: the result is
    bitwise the same however the pairs are cut into blocks.

    Args:
        image: ū of the pairs, from `pair_means`, shape (n, d).
        text: v̄ of the pairs, shape (n, d).
        bank: ī, t̄ and the number of pairs N of the bank, under the same model.
        inside: Which pairs are in the bank, shape (n,). None: no pair is.

    Returns:
        The parts, float64, each in [-1, 1], shape (n,).

    Raises:
        InputError: The bank is empty, or empty once the pair itself is left out; shapes differ; a row is longer than
            1 or not finite.

    Example:
        >>> east, north = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
        >>> bank = BankMeans(image=north[0], text=east[0], pairs=5)
        >>> [part.item() for part in alignment_parts_against(east, east, bank)]
        [1.0, 1.0, 0.0]
    """
    n, d = image.shape
    if bank.pairs == 0:
        raise InputError("bank", got="no pair", expected="at least one pair", hint="Hold out some pairs as the bank.")
    _check_means("image", image, (n, d))
    _check_means("text", text, (n, d))
    _check_means("bank means", torch.stack([bank.image, bank.text]), (2, d))
    image, text = image.double(), text.double()
    # not a matrix product: how that adds up a row depends on how many rows there are
    positive = (image * text).sum(dim=-1)
    image_bank = (image * bank.text.double()).sum(dim=-1)
    text_bank = (text * bank.image.double()).sum(dim=-1)
    if inside is not None:
        check_member(torch.where(inside, 0, -1), n, bank.pairs)
        left = [(bank.pairs * part - positive) / max(bank.pairs - 1, 1) for part in (image_bank, text_bank)]
        image_bank, text_bank = (
            torch.where(inside, without, part) for without, part in zip(left, (image_bank, text_bank), strict=True)
        )
    return AlignmentParts(positive, image_bank, text_bank)


def alignment(parts: AlignmentParts, *, weight: float = 1.0) -> Float[Tensor, "n"]:
    """Combine the parts into the alignment score.

    A = positive - w (image_bank + text_bank) (design, section 2). Higher is better aligned; the range is [-1
    - 2w, 1 + 2w].

    Args:
        parts: From `alignment_parts`, each of shape (n,).
        weight: w >= 0. 1 is the definition; 0 leaves the plain similarity of the pair; 1/2 is an option.

    Returns:
        Alignment of each pair, float64, shape (n,).

    Raises:
        InputError: The weight is negative or not finite.
    """
    if not isfinite(weight) or weight < 0:
        raise InputError(
            "weight",
            got=f"{weight}",
            expected="a finite number >= 0",
            hint="Use 1, the weight of the definition.",
        )
    positive, image_bank, text_bank = (part.double() for part in parts)
    return positive - weight * (image_bank + text_bank)
