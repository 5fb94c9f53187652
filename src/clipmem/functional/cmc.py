"""CMC, the cross-modal consistency of MultiMem (ECCV 2026): an alignment for two or more modalities.

CMC = ½ E[1ᵀ Φ Φᵀ 1] - ½ E[1ᵀ Φ Φ_hᵀ 1], with Φ (modality, d) the unit embeddings of the pair and Φ_h those of
held-out pairs. For an image and a caption this is

    CMC = 1 + s(I, T) - ½ [ s(I, I_h) + s(I, T_h) + s(T, I_h) + s(T, T_h) ]
        = 1 + A_{w = 1/2} - ½ [ ū·ī + v̄·t̄ ],

the alignment score of half weight less the similarities *within* each modality. Those do not depend on how well image
and caption match, so they add what the alignment score leaves out: how typical the image is among images, and the
caption among captions. Read a difference between CMC and CLIPMem rankings with that in mind.

Do not read CMC under one model as memorization: only the difference between a model that saw the pair and one that did
not says something (`clipmem` takes the CMC of both). Models with other held-out pairs do not compare.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from clipmem.base.errors import InputError
from clipmem.functional.alignment import LONGEST, MemberWords, check_member


def _check_rows(name: str, rows: Float[Tensor, "modality n d"]) -> None:
    # Written so that NaN is caught too: no comparison with NaN holds.
    wrong = ~(torch.linalg.vector_norm(rows.double(), dim=-1) <= LONGEST)
    if bool(wrong.any()):
        modality, row = torch.nonzero(wrong)[0].tolist()
        raise InputError(
            name,
            got=f"{int(wrong.sum())} of {wrong.numel()} rows not finite or longer than 1, the first in modality"
            f" {modality}, row {row}",
            expected="means of unit vectors",
            hint="Make them with clipmem.functional.pair_means.",
        )


_HELD_OUT = MemberWords(
    "held_out",
    "among the held-out pairs",
    "a row",
    "another held-out pair",
    "Hold out more pairs: a pair is never compared with itself.",
)


def _check_shapes(pair: Tensor, held_out: Tensor) -> None:
    if pair.shape[0] != held_out.shape[0] or pair.shape[2] != held_out.shape[2]:
        raise InputError(
            "held_out",
            got=f"{held_out.shape[0]} modalities of width {held_out.shape[2]}",
            expected=f"{pair.shape[0]} modalities of width {pair.shape[2]}, as for the pairs",
            hint="Take pairs and held-out pairs from the same model.",
        )
    if pair.shape[0] < 2:
        raise InputError(
            "pair",
            got=f"{pair.shape[0]} modalities",
            expected="at least two",
            hint="CMC compares modalities: stack, for example, the image and the caption means.",
        )
    if held_out.shape[1] == 0:
        raise InputError(
            "held_out", got="no pair", expected="at least one pair", hint="Hold out some pairs as the bank."
        )


def cmc_modalities(
    pair: Float[Tensor, "modality n d"],
    held_out: Float[Tensor, "modality N d"],
    *,
    member: Int[Tensor, "n"] | None = None,
) -> Float[Tensor, "n"]:
    """Compute CMC for any number M of modalities, in O((n + N) M d).

    CMC = ½ E[1ᵀ Φ Φᵀ 1] - ½ E[1ᵀ Φ Φ_hᵀ 1] (MultiMem, ECCV 2026). 1ᵀ Φ is the sum s of the pair's embeddings, so
    the second term is ½ s·s̄_h with s̄_h the mean over held-out pairs. The first expectation is over independent
    views and captions: a modality's own term is 1 (a unit vector with itself), not the squared length of its mean,
    so the first term is ½ [M + s·s - Σ_m ||ū_m||²]. With one view of each modality that is ½ s·s.

    Args:
        pair: Mean unit embedding of each modality of each pair (ū, v̄ from `pair_means`), lengths at most 1, shape
            (modality, n, d), at least two modalities.
        held_out: The same for pairs that no compared model trained on, shape (modality, N, d), N >= 1.
        member: Row of each pair among the held-out ones, or -1; a pair is left out of its own mean, shape (n,).

    Returns:
        CMC, float64, in [-M²/8, M²], shape (n,). Higher is better aligned.

    Raises:
        InputError: Fewer than two modalities, no held-out pair, shapes that differ, a row longer than 1 or not
            finite, or `member` out of range.

    Example:
        >>> east, north = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
        >>> cmc_modalities(torch.stack([east, east]), torch.stack([north, north])).tolist()
        [2.0]
    """
    _check_shapes(pair, held_out)
    _check_rows("pair", pair)
    _check_rows("held_out", held_out)
    modalities, n, _ = pair.shape
    bank = held_out.shape[1]
    own = pair.double()
    total = own.sum(dim=0)
    between = total.square().sum(dim=-1) - own.square().sum(dim=(0, 2))
    other = held_out.double().sum(dim=0)
    outside = total @ other.mean(dim=0)
    if member is not None:
        check_member(member, n, bank, _HELD_OUT)
        inside = torch.nonzero(member >= 0)[:, 0]
        if inside.numel():
            itself = (total[inside] * other[member[inside].long()]).sum(dim=-1)
            outside[inside] = (bank * outside[inside] - itself) / (bank - 1)
    return (modalities + between - outside) / 2


def cmc(
    image: Float[Tensor, "n d"],
    text: Float[Tensor, "n d"],
    bank_image: Float[Tensor, "N d"],
    bank_text: Float[Tensor, "N d"],
    *,
    member: Int[Tensor, "n"] | None = None,
) -> Float[Tensor, "n"]:
    """Compute CMC of image-caption pairs; takes what `alignment_parts` takes.

    CMC = 1 + s(I, T) - ½ [ s(I, I_h) + s(I, T_h) + s(T, I_h) + s(T, T_h) ], means over views, captions and held-out
    pairs (MultiMem, ECCV 2026, two modalities).

    Args:
        image: ū of the pairs, from `pair_means`, shape (n, d).
        text: v̄ of the pairs, shape (n, d).
        bank_image: ū of the held-out pairs, shape (N, d), N >= 1.
        bank_text: v̄ of the held-out pairs, shape (N, d).
        member: Row of each pair in the bank, or -1 where it is not in it, shape (n,). None: no pair is.

    Returns:
        CMC, float64, in [-1/2, 4], shape (n,). Higher is better aligned.

    Raises:
        InputError: As for `cmc_modalities`.

    Example:
        >>> east, north = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
        >>> cmc(east, north, east, east).item()
        0.0
    """
    for name, one, other in (("text", text, image), ("bank_text", bank_text, bank_image)):
        if one.shape != other.shape:
            raise InputError(
                name,
                got=f"shape {tuple(one.shape)}",
                expected=f"shape {tuple(other.shape)}",
                hint="Take images and captions from the same model, one row a pair.",
            )
    return cmc_modalities(torch.stack([image, text]), torch.stack([bank_image, bank_text]), member=member)
