"""SSLMem: memorization of a single encoder, measured by how little its output moves under small changes of the input.

L(m; x) = mean_a || m(x) - m(x_a) ||_2 on normalized embeddings, SSLMem(x) = L(g; x) - L(f; x) (design, section 2; Wang
et al., ICLR 2024). The views x_a are augmentations of an image, or other captions or seeded edits of a caption. f saw
x, g did not.

As in the published script, each view is compared with the single clean embedding (not with other views), and the
distance is Euclidean, not squared. The script takes 5 views and then applies `range_normalize`.

It does not measure memorization of a *pair*: an output may be stable because the input is easy. Captions with different
meanings make L of the text tower large under every model; only the difference is informative. A view equal to the clean
input adds 0 under both models and dilutes the score. It does not detect mismatched captions: on the shipped data the
AUROC intervals of both towers contain 0.5 (experiments/validation/RESULTS.md, "Swapped captions").
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from clipmem.base import slices
from clipmem.base.errors import require
from clipmem.stats.checks import check_same_length
from clipmem.stats.similarity import caption_counts, check_width, normalize

_BLOCK = 4096  # rows held in float64 at a time


def view_distance(clean: Float[Tensor, "n d"], views: Float[Tensor, "n view d"]) -> Float[Tensor, " n"]:
    """Return L(m; x), the mean distance from each clean embedding to those of its views.

    L(m; x) = mean_a || m(x)/||m(x)|| - m(x_a)/||m(x_a)|| ||_2 (design, section 2, "SSLMem").

    Args:
        clean: Embedding of each unchanged input, any length, shape (n, d).
        views: Embeddings of its views, at least one, shape (n, view, d).

    Returns:
        L, float64, in [0, 2], shape (n,). Lower is more stable.

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
    for rows in slices(len(clean), _BLOCK):
        origin = normalize(clean[rows].double(), name="clean embeddings")
        moved = normalize(views[rows].double(), name="view embeddings")
        distance[rows] = torch.linalg.vector_norm(moved - origin.unsqueeze(1), dim=-1).mean(dim=1)
    return distance


def text_view_distance(
    clean: Float[Tensor, "n d"], text: Float[Tensor, "m d"], text_pair: Int[Tensor, " m"]
) -> Float[Tensor, " n"]:
    """Return L of `view_distance` for captions, whose number of variants may differ between pairs.

    Args:
        clean: Embedding of the caption that the pair was trained with, shape (n, d).
        text: Embeddings of other captions or of caption edits, shape (m, d).
        text_pair: The pair of each row of `text`, in [0, n), in any order, shape (m,). Every pair needs at least one.

    Returns:
        L, float64, in [0, 2], shape (n,). Lower is more stable.

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
    for rows in slices(len(text), _BLOCK):
        owner = text_pair[rows].long()
        moved = normalize(text[rows].double(), name="caption embeddings")
        total.index_add_(0, owner, torch.linalg.vector_norm(moved - origin[owner], dim=-1))
    return total / counts
