"""`sslmem-image`: -L of the image encoder, L = mean distance between the first view of an image and the others."""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor

from clipmem.base.errors import require
from clipmem.base.sections import EmbedSection
from clipmem.models.means import Means
from clipmem.scoring.alignments.base import ALIGNMENTS, Alignment
from clipmem.stats.sslmem import view_distance


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
        """Refuse images with fewer than two views."""
        _check(max(1, settings.views))

    def positive(self, pairs: Means) -> Float[Tensor, " n"]:
        """Compute -L."""
        _check(pairs.single.image.shape[1] if pairs.single else 1)
        views = pairs.single.image.double()  # pyright: ignore[reportOptionalMemberAccess]  checked above
        return -view_distance(views[:, 0], views[:, 1:])


def _check(views: int) -> None:
    got, expected = f"{views} view of each image", "2 or more for score.alignment = 'sslmem-image'"
    require(views > 1, "[embed] views", got, expected, "Set embed.views, for example to 6.")
