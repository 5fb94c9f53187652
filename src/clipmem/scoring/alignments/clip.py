"""Alignments of image and captions against a bank: `clip`, the score of CLIPMem, and `cmc`, MultiMem's.

CMC - 1 for two modalities is s(I,T) - ½ [s(I,I_h) + s(I,T_h) + s(T,I_h) + s(T,T_h)].
"""

from jaxtyping import Bool, Float
from torch import Tensor

from clipmem.models.means import Means
from clipmem.scoring.alignments.base import ALIGNMENTS, Alignment, without_own
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
        return (pairs.image.double() * pairs.text.double()).sum(dim=-1)

    def parts_against(self, pairs: Means, bank: BankMeans, inside: Bool[Tensor, " n"]) -> AlignmentParts:
        return alignment_parts_against(pairs.image, pairs.text, bank, inside=inside)

    def control(self, sums: BankSums) -> AlignmentParts:
        """With P the mean of ū·v̄: both bank parts are (N ī·t̄ - P) / (N - 1), because Σ ū·t̄ = N ī·t̄."""
        means, positive = sums.means, sums.mean_positive
        other = (means.pairs * (means.image * means.text).sum() - positive) / (means.pairs - 1)
        return AlignmentParts(positive, other, other.clone())


@ALIGNMENTS.register("cmc")
class Cmc(Clip):
    """As `clip`, with half the similarity to both modalities of the bank."""

    summary = "MultiMem: like clip, with similarity to both modalities of the bank"
    range = (-4.5, 4.5)
    model_range = (-0.5, 4.0)
    equation = "CMC = ½ E[1ᵀΦΦᵀ1] - ½ E[1ᵀΦΦ_hᵀ1]; CMC(f) - CMC(g)"
    source = "MultiMem, ECCV 2026, two modalities"

    def parts_against(self, pairs: Means, bank: BankMeans, inside: Bool[Tensor, " n"]) -> AlignmentParts:
        """Compute ū·v̄, ½ (ū·t̄ + ū·ī) and ½ (ī·v̄ + t̄·v̄)."""
        across = super().parts_against(pairs, bank, inside)
        sides = ((across.image_bank, pairs.image, bank.image), (across.text_bank, pairs.text, bank.text))
        image, text = (
            (
                other
                + without_own(
                    (rows.double() * mean.double()).sum(dim=-1), rows.double().square().sum(dim=-1), bank.pairs, inside
                )
            )
            / 2
            for other, rows, mean in sides
        )
        return AlignmentParts(across.positive, image, text)

    def control(self, sums: BankSums) -> AlignmentParts:
        """As in `clip`; within a modality the mean over the others is (N ī·ī - mean ū·ū) / (N - 1)."""
        across, means = super().control(sums), sums.means
        within = [
            (means.pairs * mean.square().sum() - square) / (means.pairs - 1)
            for mean, square in zip((means.image, means.text), sums.mean_squares, strict=True)
        ]
        return AlignmentParts(across.positive, (across.image_bank + within[0]) / 2, (across.text_bank + within[1]) / 2)
