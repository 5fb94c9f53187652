"""The alignments that a recipe can ask for (`score.alignment`), one file each; importing this registers them.

A new alignment is one new file here and one line below.
"""

from clipmem.base.recipes import Recipe
from clipmem.score.alignments import clip, cmc, confidence, sslmem_image, sslmem_text
from clipmem.score.alignments.base import ALIGNMENTS, Alignment, Embedded, Head

__all__ = [
    "ALIGNMENTS", "Alignment", "Embedded", "Head", "alignment_of", "clip", "cmc", "confidence", "sslmem_image",
    "sslmem_text",
]  # fmt: skip


def alignment_of(recipe: Recipe) -> Alignment:
    """Return the alignment that a recipe names."""
    return ALIGNMENTS[recipe.score.alignment](recipe.score)
