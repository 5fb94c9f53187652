"""Similarity of image and caption against the similarities to all other captions and images."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from clipmem.stats.checks import check_same_length
from clipmem.stats.similarity import check_width, normalize

_TAU, _BLOCK = 0.05, 1024


class Contrast(NamedTuple):
    """Of each pair, shape (n,): similarity s_ii, margin, and s-CLIPLoss; all higher = a better fit."""

    similarity: Float64[Tensor, " n"]
    margin: Float64[Tensor, " n"]
    scaled: Float64[Tensor, " n"]


def contrast(image: Float[Tensor, "n d"], text: Float[Tensor, "m d"]) -> Contrast:
    """Compare the similarity s_ij = cos(u_i, v_j) within each pair with those across pairs.

        margin_i = s_ii - max over j ≠ i of max(s_ij, s_ji)
        scaled_i = s_ii - τ/2 (log Σ_j exp(s_ij / τ) + log Σ_j exp(s_ji / τ)),   τ = .05

    `scaled` is s-CLIPLoss (Wang et al., NeurIPS 2024), over all pairs. Time O(n² d), by blocks.

    Args:
        image: Image embeddings, any length, shape (n, d).
        text: Text embeddings of the same model, shape (n, d).

    Raises:
        InputError: Widths or lengths differ, or a row is zero or not finite.

    Example:
        >>> contrast(torch.eye(2), torch.eye(2)).margin.tolist()
        [1.0, 1.0]
    """
    check_width("text embeddings", text.shape[1], image.shape[1])
    check_same_length("image embeddings", len(image), "text embeddings", len(text))
    u, v = normalize(image.double(), name="image embeddings"), normalize(text.double(), name="text embeddings")
    own, n = (u * v).sum(dim=1), len(u)
    largest, crowd = torch.full((2, n), -2.0, dtype=torch.float64), torch.zeros(2, n, dtype=torch.float64)
    for side, (a, b) in enumerate(((u, v), (v, u))):
        for start in range(0, n, _BLOCK):
            rows = slice(start, min(start + _BLOCK, n))
            similarity = a[rows] @ b.T
            crowd[side, rows] = torch.logsumexp(similarity / _TAU, dim=1)
            similarity[torch.arange(len(similarity)), torch.arange(rows.start, rows.stop)] = -2
            largest[side, rows] = similarity.amax(dim=1)
    return Contrast(own, own - largest.amax(dim=0), own - _TAU / 2 * crowd.sum(dim=0))
