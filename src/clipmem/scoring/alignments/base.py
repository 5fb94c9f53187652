"""Base class of alignments: how well one model matches the image and captions of a pair.

An alignment has the parts `positive`, `image_bank` and `text_bank`; protocols compare positive - w (image_bank +
text_bank) between models, without constants that cancel. Parts are computed block by block against sums over the bank.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from clipmem.base.declared import own_settings
from clipmem.base.registry import Registry
from clipmem.base.sections import EmbedSection, Section
from clipmem.models.means import Means
from clipmem.scoring.bank import BankSums
from clipmem.stats.alignment import AlignmentParts, BankMeans

Need = Literal["image views", "captions", "clean image", "caption variants", "held-out pairs", "labels", "class head"]


class Alignment(ABC):
    """Declaration of an alignment, and its computation.

    Args:
        section: The recipe's `[score]`; None for default settings.

    Attributes:
        name: Name in recipes (`score.alignment`).
        summary: Description in one line.
        range: Minimum and maximum of memorization, for w = 1.
        model_range: Minimum and maximum under a single model, as published.
        sign: 1 if a better fit of the pair gives a larger published value, else -1:
            memorization = sign (mean over models that saw it - mean over those that did not).
        needs: Requirements of a run.
        equation: The value under a single model m, then memorization.
        source: Publication.
        means: Whether mean embeddings over views and captions suffice.
        finds_wrong_captions: Whether the interval of its AUROC for planted captions on the shipped data is above 0.5
            (docs/validation.md, "Planted wrong captions under each measure").
        Settings: Its table in the recipe's `[score]`, if it has one.
        words: Words in reports that differ from those for clip (see `report/templates/words.toml`).
    """

    Settings: ClassVar[type[Section] | None] = None
    words: ClassVar[Mapping[str, Any]] = {}
    means: ClassVar[bool] = False

    name: ClassVar[str]
    summary: ClassVar[str]
    range: ClassVar[tuple[float, float]]
    model_range: ClassVar[tuple[float, float]]
    sign: ClassVar[Literal[1, -1]]
    needs: ClassVar[tuple[Need, ...]]
    equation: ClassVar[str]
    source: ClassVar[str]
    finds_wrong_captions: ClassVar[bool]

    def __init__(self, section: object = None) -> None:
        self.settings: Any = own_settings(section, self.name) or (self.Settings and self.Settings())

    def check(  # noqa: B027  optional
        self, settings: EmbedSection, captions: Sequence[Sequence[str]], uids: Sequence[str], *, spare: int = 0
    ) -> None:
        """Refuse, before training, pairs that lack what this alignment needs; up to `spare` of them may."""

    @abstractmethod
    def positive(self, pairs: Means) -> Float[Tensor, " n"]:
        """Compute the part without the bank; raise an `InputError` if pairs or model lack what it needs."""

    def parts_against(
        self,
        pairs: Means,
        bank: BankMeans,  # noqa: ARG002
        inside: Bool[Tensor, " n"],  # noqa: ARG002
    ) -> AlignmentParts:
        """Compute all parts; by default without the bank.

        Args:
            pairs: The pairs.
            bank: ī, t̄ and the number of pairs of the bank, under the same model.
            inside: Mask of the pairs in the bank, each of which is excluded from its own bank.
        """
        values = self.positive(pairs)
        return AlignmentParts(values, torch.zeros_like(values), torch.zeros_like(values))

    def control(self, sums: BankSums) -> AlignmentParts:
        """Average the parts over the bank's pairs (two or more), each against the others, shape (1,)."""
        values = sums.mean_positive
        return AlignmentParts(values, torch.zeros_like(values), torch.zeros_like(values))


ALIGNMENTS: Registry[Alignment] = Registry("alignment", Alignment)  # pyright: ignore[reportAbstractUsage]


def without_own(
    means: Float[Tensor, " n"], term: Float[Tensor, " n"], count: int, inside: Bool[Tensor, " n"]
) -> Float[Tensor, " n"]:
    """Exclude a pair from the mean over its own bank: (N mean - term) / (N - 1) for pairs inside it."""
    return torch.where(inside, (count * means - term) / max(count - 1, 1), means)
