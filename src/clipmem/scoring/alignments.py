"""Alignments (`score.alignment`): how well one model matches the image and captions of a pair.

An alignment has the parts `positive`, `image_bank` and `text_bank`; protocols compare positive - w (image_bank +
text_bank) between models, without constants that cancel. Parts are computed block by block against sums over the bank.
"""
# ruff: noqa: ARG002  (an alignment uses what it needs of the pairs)

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from clipmem.base.declared import own_settings
from clipmem.base.errors import InputError, require
from clipmem.base.recipes import Recipe
from clipmem.base.registry import Registry
from clipmem.base.sections import EmbedSection, Section
from clipmem.data.views import edits_of_single
from clipmem.models.passes import Means
from clipmem.scoring.bank import BankSums
from clipmem.stats.alignment import AlignmentParts, BankMeans, alignment_parts_against
from clipmem.stats.memorization import class_probability
from clipmem.stats.sslmem import text_view_distance, view_distance

Need = Literal["image views", "captions", "clean image", "caption variants", "held-out pairs", "labels", "class head"]
Captions = Sequence[Sequence[str]]  # of each pair


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
        finds_wrong_captions: Whether the interval of its AUROC for swapped captions on the shipped data is above 0.5
            (experiments/validation/RESULTS.md, "Under each measure").
        Settings: Its table in the recipe's `[score]`, if it has one.
        words: Words in reports that differ from those for clip (see `report/templates/words.toml`).
    """

    Settings: ClassVar[type[Section] | None] = None
    words: ClassVar[Mapping[str, object]] = {}
    means: ClassVar[bool] = False

    name: ClassVar[str]
    summary: ClassVar[str]
    range: ClassVar[tuple[float, float]]
    model_range: ClassVar[tuple[float, float]]
    sign: ClassVar[Literal[1, -1]] = 1
    needs: ClassVar[tuple[Need, ...]]
    equation: ClassVar[str]
    source: ClassVar[str]
    finds_wrong_captions: ClassVar[bool] = False

    def __init__(self, section: object = None) -> None:
        self.settings: Any = own_settings(section, self.name) or (self.Settings and self.Settings())

    def check(  # noqa: B027  optional
        self, settings: EmbedSection, captions: Captions, uids: Sequence[str], *, spare: int = 0
    ) -> None:
        """Refuse, before training, pairs that lack what this alignment needs; up to `spare` of them may."""

    @abstractmethod
    def positive(self, pairs: Means) -> Float[Tensor, " n"]:
        """Compute the part without the bank; raise an `InputError` if pairs or model lack what it needs."""

    def parts_against(self, pairs: Means, bank: BankMeans, inside: Bool[Tensor, " n"]) -> AlignmentParts:
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


@ALIGNMENTS.register("clip")
class Clip(Alignment):
    """Similarity of image and captions, minus similarity to the bank: the score of CLIPMem."""

    summary = "similarity of image and captions, minus similarity to the bank"
    range = (-6.0, 6.0)
    model_range = (-3.0, 3.0)
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
    """As `clip`, with half the similarity to both modalities of the bank.

    CMC - 1 for two modalities is s(I,T) - ½ [s(I,I_h) + s(I,T_h) + s(T,I_h) + s(T,T_h)].
    """

    summary = "MultiMem: like clip, with similarity to both modalities of the bank"
    range = (-4.5, 4.5)
    model_range = (-0.5, 4.0)
    equation = "CMC = ½ E[1ᵀΦΦᵀ1] - ½ E[1ᵀΦΦ_hᵀ1]; CMC(f) - CMC(g)"
    source = "MultiMem, ECCV 2026, two modalities"

    def parts_against(self, pairs: Means, bank: BankMeans, inside: Bool[Tensor, " n"]) -> AlignmentParts:
        """Compute ū·v̄, ½ (ū·t̄ + ū·ī) and ½ (ī·v̄ + t̄·v̄)."""
        across, parts = super().parts_against(pairs, bank, inside), list[Tensor]()
        sides = ((across.image_bank, pairs.image, bank.image), (across.text_bank, pairs.text, bank.text))
        for other, rows, mean in sides:
            within = (rows.double() * mean.double()).sum(dim=-1)
            # a pair is excluded from the mean over its own bank: (N mean - its term) / (N - 1)
            without = (bank.pairs * within - rows.double().square().sum(dim=-1)) / max(bank.pairs - 1, 1)
            parts.append((other + torch.where(inside, without, within)) / 2)
        return AlignmentParts(across.positive, *parts)

    def control(self, sums: BankSums) -> AlignmentParts:
        """As in `clip`; within a modality the mean over the others is (N ī·ī - mean ū·ū) / (N - 1)."""
        across, means = super().control(sums), sums.means
        within = [
            (means.pairs * mean.square().sum() - square) / (means.pairs - 1)
            for mean, square in zip((means.image, means.text), sums.mean_squares, strict=True)
        ]
        return AlignmentParts(across.positive, (across.image_bank + within[0]) / 2, (across.text_bank + within[1]) / 2)


_CONFIDENCE = "score.alignment = 'confidence'"


@ALIGNMENTS.register("confidence")
class Confidence(Alignment):
    """mean_a softmax(head(m(I_a)))_y (Feldman 2020), mean over views; does not use the bank.

    Needs models trained with `train.objective = "supervised"`. It depends on images and labels only, not on captions.
    """

    summary = "probability of the pair's class under a class head"
    range = (-1.0, 1.0)
    model_range = (0.0, 1.0)
    needs = ("labels", "class head")
    equation = "p = softmax(logits)_y; p(in) - p(out)"
    source = "Feldman 2020; Feldman & Zhang 2020"

    def positive(self, pairs: Means) -> Float[Tensor, " n"]:
        if pairs.head is None or pairs.single is None:
            expected, hint = "train.objective = 'supervised'", "Train such models, or choose another alignment."
            raise InputError(_CONFIDENCE, got="a model without a class head", expected=expected, hint=hint)
        if pairs.labels is None:
            hint = "Set data.label_column."
            raise InputError(_CONFIDENCE, got="pairs without labels", expected="a class for every pair", hint=hint)
        image = pairs.single.image
        n, views, width = image.shape
        logits = pairs.head(image.reshape(n * views, width))
        probability = class_probability(logits, pairs.labels.repeat_interleave(views))
        return probability.reshape(n, views).mean(dim=1)


@ALIGNMENTS.register("sslmem-image")
class SslmemImage(Alignment):
    """-L of the image encoder, L the mean distance between the first view of an image and its others; no bank."""

    summary = "SSLMem of the image encoder: stability of the embedding across views"
    range = (-2.0, 2.0)
    model_range = (0.0, 2.0)
    sign = -1
    needs = ("clean image", "image views")
    equation = "L = mean_a || m(I) - m(I_a) ||; L(g) - L(f)"
    source = "Wang et al., ICLR 2024 (SSLMem)"

    def check(self, settings: EmbedSection, captions: Captions, uids: Sequence[str], *, spare: int = 0) -> None:
        _check_views(max(1, settings.views))

    def positive(self, pairs: Means) -> Float[Tensor, " n"]:
        _check_views(pairs.single.image.shape[1] if pairs.single else 1)
        views = pairs.single.image.double()  # pyright: ignore[reportOptionalMemberAccess]  checked above
        return -view_distance(views[:, 0], views[:, 1:])


def _check_views(views: int) -> None:
    got, expected = f"{views} view of each image", "2 or more for score.alignment = 'sslmem-image'"
    require(views > 1, "[embed] views", got, expected, "Set embed.views, for example to 6.")


@ALIGNMENTS.register("sslmem-text")
class SslmemText(Alignment):
    """-L of the text encoder, L the mean distance between a pair's first caption and its others; no bank."""

    summary = "SSLMem of the text encoder: stability of the embedding across captions"
    range = (-2.0, 2.0)
    model_range = (0.0, 2.0)
    sign = -1
    needs = ("captions", "caption variants")
    equation = "L = mean_k || m(T) - m(T_k) ||; L(g) - L(f)"
    source = "Wang et al., ICLR 2024 (SSLMem), for captions"

    def check(self, settings: EmbedSection, captions: Captions, uids: Sequence[str], *, spare: int = 0) -> None:
        """Refuse pairs with neither a second caption nor a caption edit."""
        edited = set(edits_of_single(captions, uids, count=settings.caption_edits)[1])
        bare = sum(len(texts) < 2 and index not in edited for index, texts in enumerate(captions))
        _check_captions(bare if bare > spare else 0)

    def positive(self, pairs: Means) -> Float[Tensor, " n"]:
        rows = pairs.single
        if rows is None:
            _check_captions(len(pairs.image))
            return torch.zeros(0, dtype=torch.float64)
        text, pair = rows.text.double(), rows.text_pair
        counts = torch.bincount(pair, minlength=len(rows.image))
        first = torch.cumsum(counts, 0) - counts
        others = torch.ones(len(text), dtype=torch.bool)
        others[first] = False
        views, owner = text[others], pair[others]
        if rows.text_edits is not None and rows.text_edits_pair is not None:
            single = counts[rows.text_edits_pair] < 2
            views = torch.cat([views, rows.text_edits[single].double()])
            owner = torch.cat([owner, rows.text_edits_pair[single]])
        _check_captions(len(rows.image) - len(owner.unique()))
        return -text_view_distance(text[first], views, owner)


def _check_captions(bare: int) -> None:
    expected = "2 or more captions, or caption edits, for score.alignment = 'sslmem-text'"
    hint = "Set train.captions or embed.caption_edits, for example to 5 (one-letter captions have no edits)."
    require(not bare, "[train] captions", f"{bare} pairs with one caption and no edits", expected, hint)


def alignment_of(recipe: Recipe) -> Alignment:
    """Return the alignment of a recipe."""
    return ALIGNMENTS[recipe.score.alignment](recipe.score)
