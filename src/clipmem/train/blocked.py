"""The contrastive loss of a large batch, block by block, in memory linear in the batch size."""

from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

BLOCK = 1024


def blocked_contrastive_loss(
    image: Float[Tensor, "n d"], text: Float[Tensor, "n d"], scale: Float[Tensor, ""], *, block: int = BLOCK
) -> Float[Tensor, ""]:
    """Return the symmetric InfoNCE loss (Radford et al. 2021, figure 3), with exact gradients.

    For normalized u, v and scale s, with z_ij = s u_i·v_j:
    L = 1/(2n) Σ_i [ log Σ_j exp z_ij + log Σ_j exp z_ji - 2 z_ii ].

    Blocks of `block` rows of z are computed for the sums, and again for the gradient
    dL/dz_ij = 1/(2n) [ exp(z_ij - log Σ_k exp z_ik) + exp(z_ij - log Σ_k exp z_kj) - 2 (i = j) ].
    There are no second derivatives.
    """
    return cast(Tensor, _Blocked.apply(image, text, scale, block))


class _Blocked(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, image: Tensor, text: Tensor, scale: Tensor, block: int) -> Tensor:
        rows = torch.empty(len(image), device=image.device)
        columns = torch.full_like(rows, -torch.inf)
        for start in range(0, len(image), block):
            z = scale * image[start : start + block] @ text.T
            rows[start : start + block] = z.logsumexp(1)
            columns = torch.logaddexp(columns, z.logsumexp(0))
        own = scale * (image * text).sum(1)
        ctx.block = block
        ctx.save_for_backward(image, text, scale, rows, columns)
        return (rows + columns - 2 * own).mean() / 2

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        image, text, scale, rows, columns = ctx.saved_tensors
        d_image, d_text = torch.empty_like(image), torch.zeros_like(text)
        for start in range(0, len(image), ctx.block):
            part = slice(start, start + ctx.block)
            z = scale * image[part] @ text.T
            d_z = (z - rows[part, None]).exp_().add_((z - columns).exp_())
            d_z[torch.arange(len(d_z)), torch.arange(start, start + len(d_z))] -= 2
            d_image[part] = d_z @ text
            d_text += d_z.T @ image[part]
        factor = grad / (2 * len(image))
        # z = s u·v, so s dL/ds = u·dL/du
        d_scale = factor * (d_image * image).sum()
        return factor * scale * d_image, factor * scale * d_text, d_scale.reshape(scale.shape), None
