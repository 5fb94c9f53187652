"""TracIn's influence of a pair on itself, on the last layer of a contrastive model, in closed form.

When not to trust it: it is one gradient at the end of the training. A pair that the model fits has a small one, whether
it generalizes to the pair or memorized it.
"""

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from clipmem.base.require import require
from clipmem.stats.checks import check_same_length
from clipmem.stats.similarity import check_width, normalize

_BLOCK = 1024


def self_influence(image: Float[Tensor, "n d"], text: Float[Tensor, "m e"], scale: float) -> Float64[Tensor, " n"]:
    """Compute the squared norm of the gradient of each pair's loss by a bilinear last layer.

    With u, v at length 1, logits s u_i·M v_j at M = I and pair i's share of the contrastive loss over all pairs,

        L_i = -½ log softmax_j(s u_i·M v_j)_i - ½ log softmax_j(s u_j·M v_i)_i,
        ∂L_i/∂M = s/2 [u_i (v̄_i - v_i)' + (ū_i - u_i) v_i'],

    where v̄_i = Σ_j softmax_j(s u_i·v_j) v_j and ū_i = Σ_j softmax_j(s u_j·v_i) u_j, so that

        ‖∂L_i/∂M‖² = s²/4 [‖v̄_i - v_i‖² + ‖ū_i - u_i‖² + 2 ((v̄_i - v_i)·v_i) ((ū_i - u_i)·u_i)].

    This is TracIn (Pruthi et al. 2020) of a pair on itself, with one checkpoint and without the learning rate. M is the
    product of both towers' last projections, in coordinates of the unit embeddings.

    Args:
        image: Image embeddings, any length, shape (n, d).
        text: Text embeddings of the same model, shape (n, d).
        scale: s, the model's exponentiated logit scale, positive.

    Returns:
        Influences, 0 or more; 0 for a pair that is told apart with certainty.

    Raises:
        InputError: Widths or lengths differ, a row is zero or not finite, or the scale is not positive.

    Example:
        >>> self_influence(torch.eye(2), torch.eye(2)[[1, 0]], 100.0).round().tolist()
        [15000.0, 15000.0]
    """
    require(0 < scale < float("inf"), "logit scale", f"{scale}", "a positive number", "Use the model's own.")
    check_width("text embeddings", text.shape[1], image.shape[1])
    check_same_length("image embeddings", len(image), "text embeddings", len(text))
    u, v = normalize(image.double(), name="image embeddings"), normalize(text.double(), name="text embeddings")
    squares, products = torch.zeros(len(u), dtype=u.dtype, device=u.device), torch.ones_like(u[:, 0])
    for a, b in ((u, v), (v, u)):
        for start in range(0, len(u), _BLOCK):
            rows = slice(start, start + _BLOCK)
            apart = torch.softmax(scale * a[rows] @ b.T, dim=1) @ b - b[rows]
            squares[rows] += (apart * apart).sum(dim=1)
            products[rows] *= (apart * b[rows]).sum(dim=1)
    return (scale**2 / 4 * (squares + 2 * products)).clamp(min=0)
