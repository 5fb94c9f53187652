"""`cmc`: MultiMem's CMC - 1 for two modalities, s(I,T) - ½ [s(I,I_h) + s(I,T_h) + s(T,I_h) + s(T,T_h)]."""

from clipmem.functional import AlignmentParts, alignment_parts, pair_means
from clipmem.score.alignments.base import Context


def parts(context: Context) -> AlignmentParts:
    """Compute picture against captions, and half of each one's similarity to both sides of the bank."""
    image, text = pair_means(
        context.embeddings.image.double(), context.embeddings.text.double(), context.embeddings.text_pair
    )
    bank_image, bank_text = image[context.bank], text[context.bank]
    across = alignment_parts(image, text, bank_image, bank_text, member=context.member)
    # the same function on swapped banks gives the similarities within a modality
    within = alignment_parts(image, text, bank_text, bank_image, member=context.member)
    return AlignmentParts(
        across.positive,
        (across.image_bank + within.image_bank) / 2,
        (across.text_bank + within.text_bank) / 2,
    )
