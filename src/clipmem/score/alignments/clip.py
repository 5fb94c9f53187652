"""`clip`: the alignment score of CLIPMem, ū·v̄, ū·t̄ and ī·v̄."""

from clipmem.functional import AlignmentParts, alignment_parts, pair_means
from clipmem.score.alignments.base import Context


def parts(context: Context) -> AlignmentParts:
    """Compute picture against captions, and each against the bank."""
    image, text = pair_means(
        context.embeddings.image.double(), context.embeddings.text.double(), context.embeddings.text_pair
    )
    return alignment_parts(image, text, image[context.bank], text[context.bank], member=context.member)
