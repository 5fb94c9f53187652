"""SSLMem: how much one encoder alone memorizes, by how little its output moves when the input is changed a little.

L(m; x) = mean_a || m(x) - m(x_a) ||_2 on normalized embeddings, SSLMem(x) = L(g; x) - L(f; x)
(design, section 2; Wang et al., ICLR 2024). The views x_a are augmentations of an image, or other captions or seeded
edits of a caption. f saw x, g did not.

Choices of the published script that hold here: the clean input is one embedding, each view is compared with *it* (never
views with each other), the distance is Euclidean and not squared, and the script takes 5 views. It then divides by
max - min over the points it looks at, without a shift: that is `range_normalize`. As everywhere, a normalized value
never compares two studies.

Do not read it as memorization of a *pair*: a tower can hold an image still because the image is easy. Captions of a
pair that say different things make L of the text tower large under every model; only the difference means
something. A view that is equal to the clean input adds 0 under both models and so dilutes the score.

It is no detector of wrong captions: on the shipped data it did not rank planted ones above the rest, in neither tower
(docs/validation.md, "Planted wrong captions": both AUROC intervals hold 0.5). For that, take an alignment.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from clipmem.base.require import require
from clipmem.functional.checks import check_same_length
from clipmem.functional.similarity import caption_counts, check_width, normalize

_BLOCK = 4096  # rows held in float64 at a time


def view_distance(clean: Float[Tensor, "n d"], views: Float[Tensor, "n view d"]) -> Float[Tensor, "n"]:
    """Average the distance from each clean embedding to those of its views: L(m; x) of one encoder.

    L(m; x) = mean_a || m(x)/||m(x)|| - m(x_a)/||m(x_a)|| ||_2 (design, section 2, "SSLMem").

    Args:
        clean: Embedding of each unchanged input, any length, shape (n, d).
        views: Embeddings of its views, shape (n, view, d), at least one view. The published script takes 5.

    Returns:
        L, float64, in [0, 2], shape (n,). Lower is steadier.

    Raises:
        InputError: Shapes differ, there is no view, or a row is zero or not finite.

    Example:
        >>> view_distance(torch.tensor([[2.0, 0.0]]), torch.tensor([[[1.0, 0.0], [-3.0, 0.0]]])).item()
        1.0
    """
    check_same_length("clean embeddings", len(clean), "views", len(views))
    check_width("views", views.shape[2], clean.shape[1])
    require(views.shape[1] > 0, "views", "no view", "at least one view an input", "Draw 5 views an input.")
    distance = torch.empty(len(clean), dtype=torch.float64, device=clean.device)
    for start in range(0, len(clean), _BLOCK):
        rows = slice(start, start + _BLOCK)
        origin = normalize(clean[rows].double(), name="clean embeddings")
        moved = normalize(views[rows].double(), name="view embeddings")
        distance[rows] = torch.linalg.vector_norm(moved - origin.unsqueeze(1), dim=-1).mean(dim=1)
    return distance


def text_view_distance(
    clean: Float[Tensor, "n d"], text: Float[Tensor, "m d"], text_pair: Int[Tensor, "m"]
) -> Float[Tensor, "n"]:
    """Average the distance from each clean caption's embedding to those of its variants, which may differ in number.

    The same L as `view_distance`; the mean is over a pair's own variants, so every pair weighs the same.

    Args:
        clean: Embedding of the caption that the pair was trained with, shape (n, d).
        text: Embeddings of other captions or of caption edits, shape (m, d).
        text_pair: The pair of each row of `text`, in [0, n), any order, shape (m,). Every pair needs at least one.

    Returns:
        L, float64, in [0, 2], shape (n,). Lower is steadier.

    Raises:
        InputError: Widths or lengths differ, a pair has no variant, an index is out of range, or a row is zero or not
            finite.

    Example:
        >>> clean = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
        >>> text = torch.tensor([[1.0, 0.0], [0.0, 5.0], [0.0, -1.0]])
        >>> text_view_distance(clean, text, torch.tensor([0, 1, 1])).tolist()
        [0.0, 1.0]
    """
    check_width("text", text.shape[1], clean.shape[1])
    counts = caption_counts(text_pair, len(clean), len(text))
    origin = normalize(clean.double(), name="clean embeddings")
    total = torch.zeros(len(clean), dtype=torch.float64, device=clean.device)
    for start in range(0, len(text), _BLOCK):
        owner = text_pair[start : start + _BLOCK].long()
        moved = normalize(text[start : start + _BLOCK].double(), name="caption embeddings")
        total.index_add_(0, owner, torch.linalg.vector_norm(moved - origin[owner], dim=-1))
    return total / counts
