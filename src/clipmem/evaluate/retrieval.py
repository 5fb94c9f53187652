"""Retrieval: does a caption find its image among all images, and an image one of its captions.

Names as in CLIP_benchmark: `image_retrieval_*` asks with a caption, `text_retrieval_*` with an image.

Recall depends on how many pairs there are to search: only compare numbers from the same pairs, and put chance
beside them. Pairs whose captions are equal cannot be told apart by anybody, and cost recall under every
model.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from clipmem.base.errors import InputError
from clipmem.functional.similarity import caption_counts, normalize

# Equal embeddings may differ in the last bits of their products, which depend on where in a block they stand.
_TIE = 1e-12


class Retrieval(NamedTuple):
    """Recalls and median ranks, and the rank of every query, from which a caller can bootstrap."""

    metrics: dict[str, float]
    image_ranks: Float[Tensor, "m"]
    text_ranks: Float[Tensor, "n"]


def _check(image: Tensor, text: Tensor, text_pair: Tensor, ks: Sequence[int], block: int) -> None:
    if image.shape[-1] != text.shape[-1] or len(text) != len(text_pair):
        raise InputError(
            "embeddings",
            got=f"images {tuple(image.shape)}, captions {tuple(text.shape)}, {len(text_pair)} pair indices",
            expected="one width, and one pair index a caption",
            hint="Take both from the same model.",
        )
    if len(image) == 0:
        raise InputError("embeddings", got="no image", expected="at least one", hint="Choose some pairs to search.")
    if any(k < 1 for k in ks):
        raise InputError("ks", got=f"{list(ks)}", expected="whole numbers >= 1", hint="Use (1, 5, 10).")
    if block < 1:
        raise InputError("block", got=f"{block}", expected="a whole number >= 1", hint="Use 1024.")


def retrieval_ranks(
    image: Float[Tensor, "n d"], text: Float[Tensor, "m d"], text_pair: Int[Tensor, "m"], *, block: int = 1024
) -> tuple[Float[Tensor, "m"], Float[Tensor, "n"]]:
    """Rank each caption's image among all images, and each image's best caption among those of other pairs.

    rank = 1 + #{others more similar} + ½ #{others as similar}: the middle of the ranks that breaking ties at
    random would give. A model that finds everything equally similar so gets the middle rank, not the first.
    Only a block by block piece of the similarities is held.

    Args:
        image: One embedding an image, normalised here, shape (n, d).
        text: Caption embeddings, normalised here, shape (m, d).
        text_pair: The image of each caption, in [0, n), any order, shape (m,); every image has a caption.
        block: Rows of a piece, >= 1. It changes memory and speed, never the result.

    Returns:
        Ranks of images (one a caption, shape (m,)) and of captions (one an image, shape (n,)), float64, >= 1.

    Raises:
        InputError: Shapes differ, there is no image, an image has no caption, an index or `block` is out of
            range, a row is zero or not finite.
    """
    _check(image, text, text_pair, (), block)
    n, m = len(image), len(text)
    caption_counts(text_pair, n)
    pair = text_pair.long()
    image = normalize(image.double(), name="image embeddings")
    text = normalize(text.double(), name="caption embeddings")
    own = torch.cat([(image[p] * t).sum(dim=-1) for p, t in zip(pair.split(block), text.split(block), strict=True)])
    best = torch.full_like(image[:, 0], -torch.inf).scatter_reduce(0, pair, own, "amax")
    # Twice the places lost: 2 to a better one, 1 to a tie. Whole numbers, so that blocks add up exactly.
    image_lost = torch.zeros(m, dtype=torch.long, device=image.device)
    text_lost = torch.zeros(n, dtype=torch.long, device=image.device)
    for top in range(0, n, block):
        rows = torch.arange(top, min(top + block, n), device=image.device)
        for left in range(0, m, block):
            columns = slice(left, left + block)
            similarity = image[rows] @ text[columns].T
            other = rows[:, None] != pair[columns][None, :]
            image_lost[columns] += _places(similarity - own[columns][None, :], other).sum(dim=0)
            text_lost[rows] += _places(similarity - best[rows][:, None], other).sum(dim=1)
    return 1 + image_lost.double() / 2, 1 + text_lost.double() / 2


def _places(lead: Float[Tensor, "rows columns"], other: Tensor) -> Int[Tensor, "rows columns"]:
    """Return 2 where another pair's item is ahead, 1 where it is level, else 0."""
    return ((lead > _TIE).to(torch.int8) + (lead >= -_TIE).to(torch.int8)) * other


def _median(ranks: Float[Tensor, "n"]) -> float:
    ordered = ranks.sort().values
    return float((ordered[(len(ranks) - 1) // 2] + ordered[len(ranks) // 2]) / 2)


def recall_at_k(
    image: Float[Tensor, "n d"],
    text: Float[Tensor, "m d"],
    text_pair: Int[Tensor, "m"],
    ks: Sequence[int] = (1, 5, 10),
    block: int = 1024,
) -> Retrieval:
    """Share of queries that find what belongs to them among the k most similar, in both directions.

    `image_retrieval_recall@k`: a caption finds its image. `text_retrieval_recall@k`: an image finds any of
    its captions. A query counts when its rank (see `retrieval_ranks`; ties take the middle rank) is at most
    k.

    Args:
        image: One embedding an image, any length, shape (n, d).
        text: Caption embeddings, any length, shape (m, d); several captions an image are right.
        text_pair: The image of each caption, in [0, n), any order, shape (m,); every image has a caption.
        ks: Cut-offs, each >= 1.
        block: Rows of a piece of the similarities held at a time.

    Returns:
        The metrics, and the ranks of all queries in float64.

    Raises:
        InputError: As for `retrieval_ranks`, or a cut-off is below 1.

    Example:
        >>> found = recall_at_k(torch.eye(3), torch.eye(3)[[0, 1, 1]], torch.tensor([0, 1, 2]), ks=(1,))
        >>> found.metrics["text_retrieval_median_rank"], found.image_ranks.tolist()
        (1.5, [1.0, 1.0, 2.5])
    """
    _check(image, text, text_pair, ks, block)
    image_ranks, text_ranks = retrieval_ranks(image, text, text_pair, block=block)
    metrics: dict[str, float] = {}
    for name, ranks in (("image_retrieval", image_ranks), ("text_retrieval", text_ranks)):
        for k in ks:
            metrics[f"{name}_recall@{k}"] = float((ranks <= k).double().mean())
        metrics[f"{name}_median_rank"] = _median(ranks)
    return Retrieval(metrics, image_ranks, text_ranks)
