"""Exact nearest neighbors by cosine, block by block, without the full similarity matrix.

Time is proportional to queries times public points. For billions of products use an approximate index, and report it.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor

from clipmem.base.require import require_range
from clipmem.stats.similarity import check_width, normalize

_DECIMALS = 12  # cosines are compared to this precision: copies of an image must tie in any block


class Neighbors(NamedTuple):
    """The k nearest public rows of each query and their cosines, nearest first, shape (q, k)."""

    rows: Int[Tensor, "q k"]
    similarity: Float64[Tensor, "q k"]


def _best(similarity: Float64[Tensor, "q c"], index: Int[Tensor, "q c"], k: int) -> Neighbors:
    """Return the k best candidates of each query; ties go to the first in `index`."""
    order = similarity.sort(dim=1, descending=True, stable=True).indices[:, :k]
    return Neighbors(index.gather(1, order), similarity.gather(1, order))


def nearest(query: Float[Tensor, "q d"], public: Float[Tensor, "p d"], k: int, *, block: int = 1024) -> Neighbors:
    """Find the k public points with the largest cosine to each query.

    For Déjà Vu the queries are captions and the public points are images under the same model.

    Args:
        query: Embeddings, any length, shape (q, d).
        public: Embeddings, any length, shape (p, d).
        k: Number of neighbors, 1 to p.
        block: Queries and public points per tile; memory is 24 block² bytes plus block (d + 2 k) numbers.

    Returns:
        Indices and cosines in [-1, 1], nearest first. Equal cosines (to 12 decimals): the lower index first.

    Raises:
        InputError: Widths differ, `k` or `block` is out of range, or a row is zero or not finite.

    Example:
        >>> nearest(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0], [3.0, 0.0], [2.0, 0.0]]), 2).rows.tolist()
        [[1, 2]]
    """
    check_width("public points", public.shape[1], query.shape[1])
    require_range("k", k, 1, len(public), "Ask for fewer neighbors.")
    require_range("block", block, 1, hint="Use 1024.")
    indices: list[Tensor] = []
    cosines: list[Tensor] = []
    for start in range(0, len(query), block):
        block_rows = normalize(query[start : start + block].double(), name="queries")
        best: Neighbors | None = None
        for first in range(0, len(public), block):
            tile = normalize(public[first : first + block].double(), name="public points")
            cosine = torch.round(block_rows @ tile.T, decimals=_DECIMALS).clamp(-1, 1)
            index = torch.arange(first, first + len(tile), device=block_rows.device).expand(cosine.shape)
            if best is not None:  # earlier points first, so that a stable sort prefers them
                index, cosine = torch.cat([best.rows, index], dim=1), torch.cat([best.similarity, cosine], dim=1)
            best = _best(cosine, index, k)
        if best is not None:
            indices.append(best.rows)
            cosines.append(best.similarity)
    if not indices:
        empty = torch.empty(0, k, device=query.device)
        return Neighbors(empty.long(), empty.double())
    return Neighbors(torch.cat(indices), torch.cat(cosines))
