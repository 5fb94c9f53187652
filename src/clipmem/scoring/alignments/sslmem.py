"""SSLMem of one encoder: -L, L the mean distance between embeddings of one image, or of one pair's captions.

`sslmem-image`: the first view of an image and its others; `sslmem-text`: a pair's first caption and its others.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from clipmem.base.errors import require
from clipmem.base.sections import EmbedSection
from clipmem.data.views import edits_of_single
from clipmem.models.means import Means
from clipmem.models.passes import Embeddings
from clipmem.scoring.alignments.base import ALIGNMENTS, Alignment
from clipmem.stats.sslmem import text_view_distance, view_distance


@ALIGNMENTS.register("sslmem-image")
class SslmemImage(Alignment):
    """-L of the image encoder; does not use the bank."""

    summary = "SSLMem of the image encoder: stability of the embedding across views"
    range = (-2.0, 2.0)
    model_range = (0.0, 2.0)
    sign = -1
    needs = ("clean image", "image views")
    equation = "L = mean_a || m(I) - m(I_a) ||; L(g) - L(f)"
    source = "Wang et al., ICLR 2024 (SSLMem)"
    finds_wrong_captions = False

    def check(
        self,
        settings: EmbedSection,
        captions: Sequence[Sequence[str]],  # noqa: ARG002
        uids: Sequence[str],  # noqa: ARG002
        *,
        spare: int = 0,  # noqa: ARG002
    ) -> None:
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
    """-L of the text encoder; does not use the bank."""

    summary = "SSLMem of the text encoder: stability of the embedding across captions"
    range = (-2.0, 2.0)
    model_range = (0.0, 2.0)
    sign = -1
    needs = ("captions", "caption variants")
    equation = "L = mean_k || m(T) - m(T_k) ||; L(g) - L(f)"
    source = "Wang et al., ICLR 2024 (SSLMem), for captions"
    finds_wrong_captions = False

    def check(
        self, settings: EmbedSection, captions: Sequence[Sequence[str]], uids: Sequence[str], *, spare: int = 0
    ) -> None:
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
        views, owner = _with_edits(rows, text[others], pair[others], counts)
        _check_captions(len(rows.image) - len(owner.unique()))
        return -text_view_distance(text[first], views, owner)


def _check_captions(bare: int) -> None:
    expected = "2 or more captions, or caption edits, for score.alignment = 'sslmem-text'"
    hint = "Set train.captions or embed.caption_edits, for example to 5 (one-letter captions have no edits)."
    require(not bare, "[train] captions", f"{bare} pairs with one caption and no edits", expected, hint)


def _with_edits(
    rows: Embeddings, others: Float[Tensor, "m d"], pair: Int[Tensor, " m"], counts: Int[Tensor, " n"]
) -> tuple[Float[Tensor, "k d"], Int[Tensor, " k"]]:
    if rows.text_edits is None or rows.text_edits_pair is None:
        return others, pair
    single = counts[rows.text_edits_pair] < 2
    edits, owner = rows.text_edits[single].double(), rows.text_edits_pair[single]
    return torch.cat([others, edits]), torch.cat([pair, owner])
