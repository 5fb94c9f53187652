"""`clip`: the alignment score of CLIPMem, ū·v̄, ū·t̄ and ī·v̄."""

from jaxtyping import Bool, Float
from torch import Tensor

from clipmem.models.means import Means
from clipmem.scoring.alignments.base import ALIGNMENTS, Alignment
from clipmem.scoring.bank import BankSums
from clipmem.stats.alignment import AlignmentParts, BankMeans, alignment_parts_against


@ALIGNMENTS.register("clip")
class Clip(Alignment):
    """Similarity of image and captions, minus similarity to the bank."""

    summary = "similarity of image and captions, minus similarity to the bank"
    range = (-6.0, 6.0)
    model_range = (-3.0, 3.0)
    sign = 1
    needs = ("image views", "captions", "held-out pairs")
    equation = "A = ū·v̄ - (ū·t̄ + ī·v̄); A(f) - A(g)"
    source = "Wang et al., ICLR 2025 (CLIPMem), weight 1"
    finds_wrong_captions = True
    means = True

    def positive(self, pairs: Means) -> Float[Tensor, " n"]:
        """Compute ū·v̄."""
        return (pairs.image.double() * pairs.text.double()).sum(dim=-1)

    def parts_against(self, pairs: Means, bank: BankMeans, inside: Bool[Tensor, " n"]) -> AlignmentParts:
        """Compute ū·v̄, ū·t̄ and ī·v̄."""
        return alignment_parts_against(pairs.image, pairs.text, bank, inside=inside)

    def control(self, sums: BankSums) -> AlignmentParts:
        """With P the mean of ū·v̄: both bank parts are (N ī·t̄ - P) / (N - 1), because Σ ū·t̄ = N ī·t̄."""
        means, positive = sums.means, sums.mean_positive
        other = (means.pairs * (means.image * means.text).sum() - positive) / (means.pairs - 1)
        return AlignmentParts(positive, other, other.clone())
