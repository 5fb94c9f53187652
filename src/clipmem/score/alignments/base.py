"""What an alignment is: from one model's embeddings of a pair to a number that says how well the model matches it.

An alignment has three parts, `positive`, `image_bank` and `text_bank`; positive - w (image_bank + text_bank) is what
protocols compare between models (constants cancel in the comparison and are left out). Parts are computed block by
block against a bank of which only sums are kept, so one implementation serves a study and millions of pairs.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from clipmem.base.declared import own_settings
from clipmem.base.registry import Registry
from clipmem.base.section import Section
from clipmem.base.sections import EmbedSection
from clipmem.embed.passes import Embeddings, chosen
from clipmem.functional import AlignmentParts, BankMeans
from clipmem.score.bank import BankSums

Head = Callable[[Float[Tensor, "n d"]], Float[Tensor, "n class"]]
Need = Literal["image views", "captions", "clean image", "caption variants", "held-out pairs", "labels", "class head"]


@dataclass(frozen=True)
class Embedded:
    """Some pairs under one model.

    Attributes:
        image: ū, mean unit embedding of each pair's views, shape (n, d).
        text: v̄, mean unit embedding of its captions, shape (n, d).
        ok: Which pairs have embeddings with a direction, shape (n,).
        rows: The single views and captions; None where only means were stored.
        labels: Class of each pair, shape (n,); None where the data has no labels.
        head: Gives the model's class scores of image embeddings; None for a model without a class head.
    """

    image: Float[Tensor, "n d"]
    text: Float[Tensor, "n d"]
    ok: Bool[Tensor, " n"]
    rows: Embeddings | None = None
    labels: Int[Tensor, " n"] | None = None
    head: Head | None = None

    def kept(self, ok: Bool[Tensor, " n"]) -> "Embedded":
        """Return the pairs that are `ok`."""
        return Embedded(
            self.image[ok],
            self.text[ok],
            self.ok[ok],
            None if self.rows is None else chosen(self.rows, torch.nonzero(ok)[:, 0]),
            None if self.labels is None else self.labels[ok],
            self.head,
        )


class Alignment(ABC):
    """Declaration of an alignment, and its computation.

    Args:
        section: The recipe's `[score]`; None for default settings.

    Attributes:
        name: Name in recipes (`score.alignment`).
        summary: What it compares, in one line.
        range: Least and largest possible memorization, for w = 1.
        model_range: Least and largest value under a single model, as published.
        sign: 1 where a model that fits the pair better has the larger published value, -1 where the smaller:
            memorization = sign (mean over models that saw it - mean over those that did not).
        needs: What a run must have to compute it.
        equation: The value under a single model m, then memorization.
        source: Who defined it.
        finds_wrong_captions: Whether it ranked planted wrong captions above the rest on the shipped data: the interval
            of its AUROC lies above 0.5 (docs/validation.md, "Planted wrong captions under each measure").
        Settings: The table that it brings to the recipe's `[score]`, under its name; None for none.
        words: What reports call things, where they are other than for clip (see `report/templates/words.toml`).
    """

    Settings: ClassVar[type[Section] | None] = None
    words: ClassVar[Mapping[str, Any]] = {}

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

    def check(  # noqa: B027  most need nothing
        self, settings: EmbedSection, captions: Sequence[Sequence[str]], uids: Sequence[str], *, spare: int = 0
    ) -> None:
        """Refuse, before any training, a study that will not have what this alignment compares.

        Args:
            settings: The recipe's `[embed]`.
            captions: The captions of each pair that are used.
            uids: The pairs.
            spare: How many of the pairs the study does without; as many may lack a view.
        """

    @abstractmethod
    def positive(self, pairs: Embedded) -> Float[Tensor, " n"]:
        """Compute the part in which no bank takes part.

        Raises:
            InputError: The pairs or the model lack what this alignment needs.
        """

    def parts_against(
        self,
        pairs: Embedded,
        bank: BankMeans,  # noqa: ARG002
        inside: Bool[Tensor, " n"],  # noqa: ARG002
    ) -> AlignmentParts:
        """Compute all parts; by default the bank takes no part.

        Args:
            pairs: The pairs.
            bank: ī, t̄ and the number of pairs of the bank, under the same model.
            inside: Which of the pairs are in the bank; each of them is left out of its own bank.
        """
        values = self.positive(pairs)
        return AlignmentParts(values, torch.zeros_like(values), torch.zeros_like(values))

    def control(self, sums: BankSums) -> AlignmentParts:
        """Average the parts over the bank's own pairs, each against the others, shape (1,); it has two or more."""
        values = sums.mean_positive
        return AlignmentParts(values, torch.zeros_like(values), torch.zeros_like(values))


ALIGNMENTS: Registry[Alignment] = Registry("alignment", Alignment)  # pyright: ignore[reportAbstractUsage]


def without_own(
    means: Float[Tensor, " n"], own: Float[Tensor, " n"], count: int, inside: Bool[Tensor, " n"]
) -> Float[Tensor, " n"]:
    """Leave a pair out of the mean over its own bank: (N mean - own) / (N - 1) for pairs inside it."""
    return torch.where(inside, (count * means - own) / max(count - 1, 1), means)
