"""The contrastive loss of a large batch, block by block, in memory linear in the batch size."""

from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

BLOCK = 1024


def blocked_contrastive_loss(
    image: Float[Tensor, "n d"],
    text: Float[Tensor, "n d"],
    scale: Float[Tensor, ""],
    weights: Float[Tensor, " n"] | None = None,
    *,
    block: int = BLOCK,
) -> Float[Tensor, ""]:
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
        for start in range(0, len(image), block):
            z = scale * image[start : start + block] @ text.T
            rows[start : start + block] = z.logsumexp(1)
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
        for start in range(0, len(image), ctx.block):
            part = slice(start, start + ctx.block)
            z = scale * image[part] @ text.T
            by_row, by_column = (z - rows[part, None]).exp_(), (z - columns).exp_()
            if weights is not None:
                by_row, by_column = by_row.mul_(weights[part, None]), by_column.mul_(weights)
            d_z = by_row.add_(by_column)
            diagonal = torch.arange(len(d_z))
            d_z[diagonal, diagonal + start] -= 2 if weights is None else 2 * weights[part]
            d_image[part] = d_z @ text
            d_text += d_z.T @ image[part]
        factor = grad / (2 * (len(image) if weights is None else weights.sum()))
        # z = s u·v, so s dL/ds = u·dL/du
        d_scale = factor * (d_image * image).sum()
        return factor * scale * d_image, factor * scale * d_text, d_scale.reshape(scale.shape), None, None
