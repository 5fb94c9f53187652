"""The alignments that a recipe can ask for (`score.alignment`), one file each, from one model to the parts of a score.

Each gives `positive`, `image_bank` and `text_bank`, whose combination positive - w (image_bank + text_bank) is what the
protocols compare between models; constants cancel in the comparison and are left out. A new alignment is one new file
here, one line below, and its name in the recipe's choices.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from clipmem.base.recipes import Recipe
from clipmem.data.edits import edits_of_single
from clipmem.embed.passes import Embeddings
from clipmem.functional import AlignmentParts
from clipmem.score.alignments import clip, cmc, confidence, sslmem_image, sslmem_text
from clipmem.score.alignments.base import Alignment, Context, Head

__all__ = ["ALIGNMENTS", "Context", "Head", "check_views", "parts_of"]

ALIGNMENTS: Mapping[str, Alignment] = {
    "clip": clip.parts,
    "cmc": cmc.parts,
    "sslmem-image": sslmem_image.parts,
    "sslmem-text": sslmem_text.parts,
    "confidence": confidence.parts,
}


def check_views(recipe: Recipe, captions: Sequence[Sequence[str]], uids: Sequence[str], *, spare: int = 0) -> None:
    """Check before any training that the views which the recipe's alignment compares will be there.

    Args:
        recipe: The recipe.
        captions: The captions of each pair that are used.
        uids: The pairs.
        spare: How many of the pairs the study does without; as many may lack a view.

    Raises:
        InputError: They will not: the same errors as those of `parts_of`.
    """
    if recipe.score.alignment == "sslmem-image":
        sslmem_image.check(max(1, recipe.embed.views))
    if recipe.score.alignment == "sslmem-text":
        edited = set(edits_of_single(captions, uids, count=recipe.embed.caption_edits)[1])
        bare = sum(len(own) < 2 and index not in edited for index, own in enumerate(captions))
        sslmem_text.check(bare if bare > spare else 0)


def parts_of(
    embeddings: Embeddings,
    external: np.ndarray,
    alignment: str = "clip",
    *,
    labels: np.ndarray | None = None,
    head: Head | None = None,
) -> AlignmentParts:
    """Compute the parts of every pair's alignment under one model.

    Args:
        embeddings: Embeddings of the study's pairs, in the order of the split table.
        external: Which pairs are the bank, shape (n,); each of them is scored against the others.
        alignment: A name of `ALIGNMENTS`.
        labels: Class of each pair, shape (n,), where the data has labels.
        head: The model's class head, where it has one.

    Raises:
        InputError: The alignment needs what the study does not have (see its file).
    """
    bank = torch.from_numpy(np.flatnonzero(external))
    member = torch.full((len(external),), -1, dtype=torch.long)
    member[bank] = torch.arange(len(bank))
    own = None if labels is None else torch.from_numpy(labels)
    return ALIGNMENTS[alignment](Context(embeddings, bank, member, own, head))
