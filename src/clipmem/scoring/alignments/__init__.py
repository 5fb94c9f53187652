"""Alignments (`score.alignment`), one file per family; importing this package registers them."""

from clipmem.base.recipes import Recipe
from clipmem.scoring.alignments import clip, confidence, sslmem
from clipmem.scoring.alignments.base import ALIGNMENTS, Alignment

__all__ = ["ALIGNMENTS", "Alignment", "alignment_of", "clip", "confidence", "sslmem"]


def alignment_of(recipe: Recipe) -> Alignment:
    """Return the alignment of a recipe."""
    return ALIGNMENTS[recipe.score.alignment](recipe.score)
