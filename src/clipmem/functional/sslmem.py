"""SSLMem: how much one encoder alone memorizes, by how little its output moves when the input is changed a little.

L(m; x) = mean_a || m(x) - m(x_a) ||_2 on normalised embeddings, SSLMem(x) = L(g; x) - L(f; x)
(design, section 2; Wang et al., ICLR 2024). The views x_a are augmentations of an image, or other captions or seeded
edits of a caption. f saw x, g did not.

Choices of the published script that hold here: the clean input is one embedding, each view is compared with *it* (never
views with each other), the distance is Euclidean and not squared, and the script takes 5 views. It then divides by
max - min over the points it looks at, without a shift: that is `range_normalise`. As everywhere, a normalised value
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

from clipmem.base.errors import InputError
from clipmem.functional.memorization import clipmem
from clipmem.functional.similarity import caption_counts, normalize

_BLOCK = 4096  # rows held in float64 at a time


def _check_width(clean: Tensor, other: Tensor, name: str) -> None:
    if clean.shape[-1] != other.shape[-1]:
        raise InputError(
            name,
            got=f"width {other.shape[-1]}",
            expected=f"width {clean.shape[-1]}, that of the clean embeddings",
            hint="Take both from the same model.",
        )


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
    if len(clean) != len(views):
        raise InputError(
            "views",
            got=f"those of {len(views)} inputs",
            expected=f"those of {len(clean)}, the clean embeddings",
            hint="Give one row of views an input.",
        )
    _check_width(clean, views, "views")
    if views.shape[1] == 0:
        raise InputError("views", got="no view", expected="at least one view an input", hint="Draw 5 views an input.")
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
    _check_width(clean, text, "text")
    if len(text_pair) != len(text):
        raise InputError(
            "text_pair",
            got=f"{len(text_pair)} indices for {len(text)} caption rows",
            expected="one index a caption row",
            hint="Give each caption row the index of its pair.",
        )
    counts = caption_counts(text_pair, len(clean))
    origin = normalize(clean.double(), name="clean embeddings")
    total = torch.zeros(len(clean), dtype=torch.float64, device=clean.device)
    for start in range(0, len(text), _BLOCK):
        owner = text_pair[start : start + _BLOCK].long()
        moved = normalize(text[start : start + _BLOCK].double(), name="caption embeddings")
        total.index_add_(0, owner, torch.linalg.vector_norm(moved - origin[owner], dim=-1))
    return total / counts


def sslmem(target: Float[Tensor, "seed n"], reference: Float[Tensor, "other_seed n"]) -> Float[Tensor, "n"]:
    """Subtract the mean distance under the target models from that under the reference models.

    SSLMem = mean_k L(g_k) - mean_k L(f_k) (design, section 2). Higher is more memorized: the model that saw the input
    moves it less. Range [-2, 2]. Swapping the arguments negates it.

    Args:
        target: L under the models f that saw the input, one row a seed, shape (seed, n).
        reference: L under the models g that did not, shape (other_seed, n).

    Returns:
        SSLMem of each input, float64, shape (n,). `range_normalise` brings it to the published scale.

    Raises:
        InputError: A side has no seed, the sides have different numbers of pairs, or a value is not finite.

    Example:
        >>> sslmem(torch.tensor([[0.25, 0.5]]), torch.tensor([[1.0, 0.5]])).tolist()
        [0.75, 0.0]
    """
    # Not clipmem(reference, target): its errors would name the wrong side. 0 - x rather than -x: no minus zero.
    return 0.0 - clipmem(target, reference)
