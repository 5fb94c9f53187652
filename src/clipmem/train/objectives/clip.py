"""CLIP (Radford et al. 2021): each image must find its caption among the batch's, and each caption its image."""

from collections.abc import Sequence
from typing import ClassVar

from jaxtyping import Float, Int
from torch import Tensor

from clipmem.models.openclip import contrastive_loss
from clipmem.train.blocked import blocked_contrastive_loss
from clipmem.train.distributed import contrastive_share
from clipmem.train.objectives.base import OBJECTIVES, Images, Objective, Texts, Towers

# larger batches compute the loss in blocks: at this size the logits, their softmax and gradient take about 300 MB, and
# four times as much at twice the size
LARGE = 4096


@OBJECTIVES.register("clip")
class Clip(Objective):
    """InfoNCE in both directions, open_clip's `ClipLoss`.

    For the batch's normalized embeddings u, v and scale s, (CE(s u vᵀ, identity) + CE(s v uᵀ, identity)) / 2. With
    weights of pairs both cross entropies are weighted means over the rows; all pairs stay in the denominators.
    """

    softmax: ClassVar[bool] = True
    shares: ClassVar[bool] = True
    weighs: ClassVar[bool] = True

    def forward(
        self,
        encoder: Towers,
        views: Sequence[Images],
        tokens: Texts,
        labels: Int[Tensor, " n"] | None,  # noqa: ARG002
    ) -> Float[Tensor, ""]:
        image, text = encoder.encode_image(views[0]), encoder.encode_text(tokens)
        u, v = encoder.unit("image", image), encoder.unit("text", text)
        weights = encoder.weights(u)
        if encoder.world.size > 1:
            return contrastive_share(u, v, encoder.logit_scale(), encoder.world, weights)
        if weights is not None and not bool((weights == 1).all()):  # else the same bits as without weights
            return blocked_contrastive_loss(u, v, encoder.logit_scale(), weights)
        loss = contrastive_loss if len(u) <= LARGE else blocked_contrastive_loss
        return loss(u, v, encoder.logit_scale())
