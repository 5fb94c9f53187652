"""Mean unit embeddings of pairs under one model, in float32."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from clipmem.stats.similarity import pair_means


class Means(NamedTuple):
    """ū and v̄ of some pairs, shape (n, d), and a mask of the usable ones, shape (n,)."""

    image: Float[Tensor, "n d"]
    text: Float[Tensor, "n d"]
    ok: Bool[Tensor, " n"]


def unit_means(image: Float[Tensor, "n view d"], text: Float[Tensor, "m d"], text_pair: Int[Tensor, " m"]) -> Means:
    """Average each pair's unit embeddings over its views and over its captions.

    ū = mean_a image_a / ||image_a||, v̄ = mean_k text_k / ||text_k||, as in `pair_means`.
    """
    bad_image, bad_text = (~(_largest(rows) > 0) | torch.isinf(_largest(rows)) for rows in (image, text))
    bad = bad_image.any(dim=1)
    bad[text_pair[bad_text]] = True
    u, v = pair_means(
        torch.where(bad_image.unsqueeze(-1), 1.0, image) if bad_image.any() else image,
        torch.where(bad_text.unsqueeze(-1), 1.0, text) if bad_text.any() else text,
        text_pair,
    )
    return Means(u.float(), v.float(), ~bad)


def _largest(rows: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch"]:
    """Return max |x| of each row; NaN if a value is NaN."""
    return torch.linalg.vector_norm(rows, ord=float("inf"), dim=-1)
