"""Unit vectors, pair means, and the similarity of image and caption against that to all others.

A pair has one or more image views and captions. The alignment score is bilinear, so it needs only the mean ū of the
pair's unit image embeddings and the mean v̄ of its unit caption embeddings. Do not normalize ū and v̄ again: their
length is part of the score (views that disagree have a short mean).
"""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor

from clipmem.base import slices
from clipmem.base.errors import InputError, require
from clipmem.base.random import generator
from clipmem.stats.cells import EXACT
from clipmem.stats.checks import check_same_length
from clipmem.stats.tensor_checks import check_index

_BLOCK = 4096  # rows held in float64 at a time


def _largest_entries(x: Float[Tensor, "*batch d"], name: str) -> Float[Tensor, "*batch"]:
    """Return max |x| of each row; raise if a row is zero or not finite."""
    require(x.shape[-1] > 0, name, f"shape {tuple(x.shape)}", "at least one column", "Check the embedding width.")
    largest = torch.linalg.vector_norm(x.detach(), ord=float("inf"), dim=-1)
    infinite, zero = ~torch.isfinite(largest), largest == 0
    bad = infinite | zero
    if bool(bad.any()):
        first, zeros, infinites = torch.nonzero(bad)[0].tolist(), int(zero.sum()), int(infinite.sum())
        got = f"{zeros} zero and {infinites} not finite rows of {bad.numel()}, the first at index {first}"
        hint = "Check the model and the input of that row: it has no direction."
        raise InputError(name, got=got, expected="finite rows that are not all zero", hint=hint)
    return largest


def _unit(x: Float[Tensor, "*batch d"], name: str) -> Float[Tensor, "*batch d"]:
    """Return the unit rows, float64; dividing by the largest entry first keeps squares finite."""
    scaled = x.double() / _largest_entries(x, name).double().unsqueeze(-1)
    return scaled / torch.linalg.vector_norm(scaled, dim=-1, keepdim=True)


def normalize(x: Float[Tensor, "*batch d"], *, name: str = "embeddings") -> Float[Tensor, "*batch d"]:
    """Normalize every row to Euclidean length 1: x / ||x||_2 over the last axis.

    Args:
        x: Embeddings, shape (*batch, d).
        name: Their name in errors.

    Returns:
        The unit rows, shape and dtype of `x`, computed in float64. Gradients pass through.

    Raises:
        InputError: A row is zero or not finite.

    Example:
        >>> normalize(torch.tensor([[3.0, 4.0]]))
        tensor([[0.6000, 0.8000]])
    """
    return _unit(x, name).to(x.dtype)


def caption_counts(text_pair: Int[Tensor, " m"], n: int, m: int) -> Int[Tensor, " n"]:
    """Return the number of captions of each of `n` pairs, at least one, from the pairs of `m` caption rows."""
    hint = "Give each caption row the index of its pair."
    require(len(text_pair) == m, "text_pair", f"{len(text_pair)} indices for {m} caption rows", "one each", hint)
    check_index("text_pair", text_pair, 0, n, hint)
    counts = torch.bincount(text_pair.long(), minlength=n)
    if bool((counts == 0).any()):
        empty = torch.nonzero(counts == 0)[:, 0]
        got = f"{empty.numel()} of {n} pairs without a caption, the first is pair {int(empty[0])}"
        hint = "Leave those pairs out, or add their captions."
        raise InputError("text_pair", got=got, expected="at least one caption row a pair", hint=hint)
    return counts


def check_width(name: str, width: int, expected: int) -> None:
    """Raise an `InputError` unless the width is the expected one."""
    require(width == expected, name, f"width {width}", f"width {expected}", "Take all embeddings from the same model.")


def unit_pairs(
    image: Float[Tensor, "n d"], text: Float[Tensor, "m e"]
) -> tuple[Float64[Tensor, "n d"], Float64[Tensor, "n d"]]:
    """Return one image and one text embedding of each pair at length 1, float64, if their shapes agree."""
    check_width("text embeddings", text.shape[1], image.shape[1])
    check_same_length("image embeddings", len(image), "text embeddings", len(text))
    return normalize(image.double(), name="image embeddings"), normalize(text.double(), name="text embeddings")


def pair_means(
    image: Float[Tensor, "n view d"], text: Float[Tensor, "m d"], text_pair: Int[Tensor, " m"]
) -> tuple[Float[Tensor, "n d"], Float[Tensor, "n d"]]:
    """Average the unit embeddings of each pair's views and of each pair's captions.

    ū_i = mean_a image_ia / ||image_ia||,  v̄_i = mean_k text_ik / ||text_ik|| (design, section 2, "Alignment score").

    Args:
        image: Image embeddings, any length, shape (n, view, d), at least one view.
        text: Caption embeddings, any length, shape (m, d).
        text_pair: The pair of each caption row, in [0, n), in any order, shape (m,).

    Returns:
        (ū, v̄), float64, each of shape (n, d), lengths in [0, 1].

    Raises:
        InputError: Widths differ, there is no view, a pair has no caption, an index is out of range, or a row is zero
            or not finite.

    Example:
        >>> image = torch.tensor([[[2.0, 0.0], [0.0, 2.0]]])
        >>> u, v = pair_means(image, torch.tensor([[0.0, 3.0]]), torch.tensor([0]))
        >>> u.tolist(), v.tolist()
        ([[0.5, 0.5]], [[0.0, 1.0]])
    """
    n, views, d = image.shape
    check_width("caption embeddings", text.shape[1], d)
    require(views > 0, "image embeddings", "no view", "at least one view a pair", "Embed each image once or more.")
    counts = caption_counts(text_pair, n, len(text))
    _largest_entries(image, "image embeddings")  # before the blocks, so that an error counts all rows
    _largest_entries(text, "caption embeddings")
    image_mean = torch.empty(n, d, dtype=torch.float64, device=image.device)
    for rows in slices(n, _BLOCK):
        image_mean[rows] = _unit(image[rows], "image embeddings").mean(dim=1)
    text_sum = torch.zeros(n, d, dtype=torch.float64, device=text.device)
    for rows in slices(len(text), _BLOCK):
        text_sum.index_add_(0, text_pair[rows].long(), _unit(text[rows], "caption embeddings"))
    return image_mean, text_sum / counts.unsqueeze(-1)


_TAU, _CONTRASTED = 0.05, 1024  # temperature of s-CLIPLoss, rows compared at a time


class Contrast(NamedTuple):
    """Of each pair, shape (n,): similarity s_ii, margin, and s-CLIPLoss; all higher = a better fit."""

    similarity: Float64[Tensor, " n"]
    margin: Float64[Tensor, " n"]
    scaled: Float64[Tensor, " n"]


def contrast(image: Float[Tensor, "n d"], text: Float[Tensor, "m d"]) -> Contrast:
    """Compare the similarity s_ij = cos(u_i, v_j) within each pair with those across pairs.

        margin_i = s_ii - max over j ≠ i of max(s_ij, s_ji)
        scaled_i = s_ii - τ/2 (log Σ_j exp(s_ij / τ) + log Σ_j exp(s_ji / τ)),   τ = .05

    `scaled` is s-CLIPLoss (Wang et al., NeurIPS 2024). Of more than 30,000 pairs, each is compared with those of a
    random batch of up to as many, as by its authors. Time O(n d) times the size of a batch.

    Args:
        image: Image embeddings, any length, shape (n, d).
        text: Text embeddings of the same model, shape (n, d).

    Raises:
        InputError: Widths or lengths differ, or a row is zero or not finite.

    Example:
        >>> contrast(torch.eye(2), torch.eye(2)).margin.tolist()
        [1.0, 1.0]
    """
    u, v = unit_pairs(image, text)
    positive, n = (u * v).sum(dim=1), len(u)
    largest, crowd = torch.full((2, n), -2.0, dtype=torch.float64), torch.zeros(2, n, dtype=torch.float64)
    order = np.arange(n) if n <= EXACT else generator(0, "s-CLIPLoss").permutation(n)
    for batch in map(torch.from_numpy, np.array_split(order, 1 + n // (EXACT + 1))):
        for side, (a, b) in enumerate(((u[batch], v[batch]), (v[batch], u[batch]))):
            for rows in slices(len(batch), _CONTRASTED):
                similarity = a[rows] @ b.T
                crowd[side, batch[rows]] = torch.logsumexp(similarity / _TAU, dim=1)
                similarity[torch.arange(len(similarity)), torch.arange(rows.start, rows.stop)] = -2
                largest[side, batch[rows]] = similarity.amax(dim=1)
    return Contrast(positive, positive - largest.amax(dim=0), positive - _TAU / 2 * crowd.sum(dim=0))
