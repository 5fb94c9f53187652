"""`sslmem-text`: -L of the text tower, minus the mean distance between a pair's first caption and its other captions.

A pair that has one caption is compared with the seeded edits of it, which `embed.caption_edits` asks for.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from clipmem.base.errors import InputError
from clipmem.embed.passes import Embeddings
from clipmem.functional import AlignmentParts, text_view_distance
from clipmem.score.alignments.base import Context, one_part


def check(bare: int) -> None:
    """Refuse a study in which `bare` pairs, more than none, have neither a second caption nor an edit."""
    if bare:
        raise InputError(
            "[train] captions",
            got=f"{bare} pairs with one caption and no edit of it",
            expected="2 or more captions, or caption edits, for score.alignment = 'sslmem-text'",
            hint="Set train.captions or embed.caption_edits, for example to 5; a caption of one letter has no edit.",
        )


def parts(context: Context) -> AlignmentParts:
    """Compute -L; the bank takes no part.

    Raises:
        InputError: A pair has neither a second caption nor an edit of its first.
    """
    embeddings = context.embeddings
    text, pair = embeddings.text.double(), embeddings.text_pair
    counts = torch.bincount(pair, minlength=len(embeddings.image))
    first = torch.cumsum(counts, 0) - counts
    others = torch.ones(len(text), dtype=torch.bool)
    others[first] = False
    views, owner = _with_edits(embeddings, text[others], pair[others], counts)
    check(len(embeddings.image) - len(owner.unique()))
    return one_part(-text_view_distance(text[first], views, owner))


def _with_edits(
    embeddings: Embeddings, others: Float[Tensor, "m d"], pair: Int[Tensor, " m"], counts: Int[Tensor, " n"]
) -> tuple[Float[Tensor, "k d"], Int[Tensor, " k"]]:
    """Add the edits of the pairs that have one caption: where there are other captions, those are the better views."""
    if embeddings.text_edits is None or embeddings.text_edits_pair is None:
        return others, pair
    alone = counts[embeddings.text_edits_pair] < 2
    edits, owner = embeddings.text_edits[alone].double(), embeddings.text_edits_pair[alone]
    return torch.cat([others, edits]), torch.cat([pair, owner])
