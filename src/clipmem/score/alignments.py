"""The alignments that a recipe can ask for (`score.alignment`), from one model's embeddings to the parts of a score.

Each gives `positive`, `image_bank` and `text_bank`, whose combination positive - w (image_bank + text_bank) is what the
protocols compare between models; constants cancel in the comparison and are left out.
"""

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from clipmem.base.errors import InputError
from clipmem.embed.passes import Embeddings
from clipmem.functional import AlignmentParts, alignment_parts, pair_means, text_view_distance, view_distance


def parts_of(embeddings: Embeddings, external: np.ndarray, alignment: str = "clip") -> AlignmentParts:
    """Compute the parts of every pair's alignment under one model.

    Args:
        embeddings: Embeddings of the study's pairs, in the order of the split table.
        external: Which pairs are the bank, shape (n,); each of them is scored against the others.
        alignment: A name of `ALIGNMENTS`.
    """
    bank = torch.from_numpy(np.flatnonzero(external))
    member = torch.full((len(external),), -1, dtype=torch.long)
    member[bank] = torch.arange(len(bank))
    return ALIGNMENTS[alignment](embeddings, bank, member)


def _clip(embeddings: Embeddings, bank: Int[Tensor, " k"], member: Int[Tensor, " n"]) -> AlignmentParts:
    """The alignment score of the design: ū·v̄, ū·t̄ and ī·v̄."""
    image, text = pair_means(embeddings.image.double(), embeddings.text.double(), embeddings.text_pair)
    return alignment_parts(image, text, image[bank], text[bank], member=member)


def _cmc(embeddings: Embeddings, bank: Int[Tensor, " k"], member: Int[Tensor, " n"]) -> AlignmentParts:
    """MultiMem's CMC - 1 for two modalities: s(I,T) - ½ [s(I,I_h) + s(I,T_h) + s(T,I_h) + s(T,T_h)]."""
    image, text = pair_means(embeddings.image.double(), embeddings.text.double(), embeddings.text_pair)
    across = alignment_parts(image, text, image[bank], text[bank], member=member)
    # the same function on swapped banks gives the similarities within a modality
    within = alignment_parts(image, text, text[bank], image[bank], member=member)
    return AlignmentParts(
        across.positive,
        (across.image_bank + within.image_bank) / 2,
        (across.text_bank + within.text_bank) / 2,
    )


def _sslmem_image(embeddings: Embeddings, _bank: Int[Tensor, " k"], _member: Int[Tensor, " n"]) -> AlignmentParts:
    """-L of the image tower: minus the mean distance between the views of a picture and their first."""
    if embeddings.image.shape[1] < 2:
        raise InputError(
            "[embed] views",
            got=f"{embeddings.image.shape[1]} view of each picture",
            expected="2 or more for score.alignment = 'sslmem-image'",
            todo="Set embed.views, for example to 6.",
        )
    views = embeddings.image.double()
    return _loss_only(view_distance(views[:, 0], views[:, 1:]))


def _sslmem_text(embeddings: Embeddings, _bank: Int[Tensor, " k"], _member: Int[Tensor, " n"]) -> AlignmentParts:
    """-L of the text tower: minus the mean distance between a pair's captions and the first of them."""
    text, pair = embeddings.text.double(), embeddings.text_pair
    counts = torch.bincount(pair, minlength=len(embeddings.image))
    if int(counts.min()) < 2:
        raise InputError(
            "[train] captions",
            got="pairs with one caption",
            expected="2 or more for score.alignment = 'sslmem-text'",
            todo="Set train.captions, for example to 5.",
        )
    first = torch.cumsum(counts, 0) - counts
    others = torch.ones(len(text), dtype=torch.bool)
    others[first] = False
    return _loss_only(text_view_distance(text[first], text[others], pair[others]))


def _loss_only(loss: Tensor) -> AlignmentParts:
    nothing = torch.zeros_like(loss)
    return AlignmentParts(-loss, nothing, nothing.clone())


ALIGNMENTS: dict[str, Callable[[Embeddings, Tensor, Tensor], AlignmentParts]] = {
    "clip": _clip,
    "cmc": _cmc,
    "sslmem-image": _sslmem_image,
    "sslmem-text": _sslmem_text,
}
