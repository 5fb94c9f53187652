"""`cmc`: MultiMem's CMC - 1 for two modalities, s(I,T) - ½ [s(I,I_h) + s(I,T_h) + s(T,I_h) + s(T,T_h)]."""

from jaxtyping import Bool
from torch import Tensor

from clipmem.models.means import Means
from clipmem.scoring.alignments.base import ALIGNMENTS, without_own
from clipmem.scoring.alignments.clip import Clip
from clipmem.scoring.bank import BankSums
from clipmem.stats.alignment import AlignmentParts, BankMeans


@ALIGNMENTS.register("cmc")
class Cmc(Clip):
    """As `clip`, with half the similarity to both modalities of the bank."""

    summary = "MultiMem: like clip, with similarity to both modalities of the bank"
    range = (-4.5, 4.5)
    model_range = (-0.5, 4.0)
    sign = 1
    needs = ("image views", "captions", "held-out pairs")
    equation = "CMC = ½ E[1ᵀΦΦᵀ1] - ½ E[1ᵀΦΦ_hᵀ1]; CMC(f) - CMC(g)"
    source = "MultiMem, ECCV 2026, two modalities"
    finds_wrong_captions = True

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
