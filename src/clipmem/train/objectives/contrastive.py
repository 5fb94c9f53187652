"""Objectives on images and captions: CLIP (Radford et al. 2021) and SigLIP (Zhai et al. 2023).

CLIP: each image must find its caption among the batch's, and each caption its image. SigLIP: classify every image and
caption of a batch as matching or not.
"""
# ruff: noqa: ARG002  (an objective uses what it needs of a batch)

from collections.abc import Sequence
from typing import Any, ClassVar, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from clipmem import models
from clipmem.base import slices
from clipmem.models.protocol import Rows, Scalar, TrainableEncoder
from clipmem.train.distributed import contrastive_share, sigmoid_share
from clipmem.train.objectives.base import OBJECTIVES, Images, Labels, Objective, Texts, Towers

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

    def forward(self, encoder: Towers, views: Sequence[Images], tokens: Texts, labels: Labels) -> Scalar:
        image, text = encoder.encode_image(views[0]), encoder.encode_text(tokens)
        u, v = encoder.unit("image", image), encoder.unit("text", text)
        weights = encoder.weights(u)
        if encoder.world.size > 1:
            return contrastive_share(u, v, encoder.logit_scale(), encoder.world, weights)
        if weights is not None and not bool((weights == 1).all()):  # else the same bits as without weights
            return blocked_contrastive_loss(u, v, encoder.logit_scale(), weights)
        loss = models.openclip.contrastive_loss if len(u) <= LARGE else blocked_contrastive_loss
        return loss(u, v, encoder.logit_scale())


START_SCALE, START_BIAS = 10.0, -10.0


@OBJECTIVES.register("siglip")
class SigLip(Objective):
    """The pairwise sigmoid loss, open_clip's `SigLipLoss`.

    For the batch's normalized embeddings u, v, scale s and bias b, -1/n Σ_i Σ_j log sigmoid(z_ij (s u_i·v_j + b)), with
    z_ij = 1 for i = j and -1 otherwise (Zhai et al. 2023, equation 1). As there, s starts at 10 and b at -10, except in
    models with a `logit_bias` of their own, such as a pretrained SigLIP: they keep both, and get the trained bias back.
    The bias does not change which caption is nearest.
    """

    shares: ClassVar[bool] = True

    def __init__(self) -> None:
        super().__init__()
        self.logit_bias = nn.Parameter(torch.tensor(START_BIAS))

    def prepare(self, encoder: TrainableEncoder) -> None:
        bias, scale = (getattr(encoder.module, name, None) for name in ("logit_bias", "logit_scale"))
        if bias is not None:
            self.logit_bias.data.copy_(bias.detach().reshape(()))
        elif scale is not None and scale.requires_grad:
            encoder.set_logit_scale(START_SCALE)

    def finish(self, encoder: TrainableEncoder) -> None:
        if (bias := getattr(encoder.module, "logit_bias", None)) is not None:
            bias.data.fill_(self.logit_bias.item())

    def forward(self, encoder: Towers, views: Sequence[Images], tokens: Texts, labels: Labels) -> Scalar:
        image, text = encoder.encode_image(views[0]), encoder.encode_text(tokens)
        u, v = encoder.unit("image", image), encoder.unit("text", text)
        if encoder.world.size > 1:
            return sigmoid_share(u, v, encoder.logit_scale(), self.logit_bias, encoder.world)
        return models.openclip.sigmoid_loss(u, v, encoder.logit_scale(), self.logit_bias)


BLOCK = 1024


def blocked_contrastive_loss(
    image: Rows, text: Rows, scale: Scalar, weights: Float[Tensor, " n"] | None = None, *, block: int = BLOCK
) -> Scalar:
    """Return the symmetric InfoNCE loss (Radford et al. 2021, figure 3), with exact gradients.

    For normalized u, v and scale s, with z_ij = s u_i·v_j:
    L = 1/(2 Σ w) Σ_i w_i [ log Σ_j exp z_ij + log Σ_j exp z_ji - 2 z_ii ], with weights w, by default 1.

    Blocks of `block` rows of z are computed for the sums, and again for the gradient
    dL/dz_ij = 1/(2 Σ w) [ w_i exp(z_ij - log Σ_k exp z_ik) + w_j exp(z_ij - log Σ_k exp z_kj) - 2 w_i (i = j) ].
    There are no second derivatives, and none for the weights.
    """
    return cast(Tensor, _Blocked.apply(image, text, scale, weights, block))


class _Blocked(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, image: Tensor, text: Tensor, scale: Tensor, weights: Tensor | None, block: int) -> Tensor:
        rows = torch.empty(len(image), device=image.device)
        columns = torch.full_like(rows, -torch.inf)
        for part in slices(len(image), block):
            z = scale * image[part] @ text.T
            rows[part] = z.logsumexp(1)
            columns = torch.logaddexp(columns, z.logsumexp(0))
        diagonal = scale * (image * text).sum(1)
        ctx.block = block
        ctx.save_for_backward(image, text, scale, rows, columns, weights)
        terms = rows + columns - 2 * diagonal
        return (terms.mean() if weights is None else (weights * terms).sum() / weights.sum()) / 2

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        image, text, scale, rows, columns, weights = ctx.saved_tensors
        d_image, d_text = torch.empty_like(image), torch.zeros_like(text)
        for part in slices(len(image), ctx.block):
            z = scale * image[part] @ text.T
            by_row, by_column = (z - rows[part, None]).exp_(), (z - columns).exp_()
            if weights is not None:
                by_row, by_column = by_row.mul_(weights[part, None]), by_column.mul_(weights)
            d_z = by_row.add_(by_column)
            diagonal = torch.arange(len(d_z))
            d_z[diagonal, diagonal + part.start] -= 2 if weights is None else 2 * weights[part]
            d_image[part] = d_z @ text
            d_text += d_z.T @ image[part]
        factor = grad / (2 * (len(image) if weights is None else weights.sum()))
        # z = s u·v, so s dL/ds = u·dL/du
        d_scale = factor * (d_image * image).sum()
        return factor * scale * d_image, factor * scale * d_text, d_scale.reshape(scale.shape), None, None
