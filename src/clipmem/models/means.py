"""Mean unit embeddings of pairs under one model, in float32."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from clipmem.models.passes import Embeddings, chosen, join
from clipmem.stats.similarity import pair_means

Head = Callable[[Float[Tensor, "n d"]], Float[Tensor, "n class"]]


class Means(NamedTuple):
    """Embeddings of some pairs under one model.

    Attributes:
        image: ū, the mean unit embedding of each pair's views, shape (n, d).
        text: v̄, the mean unit embedding of its captions, shape (n, d).
        ok: Mask of the pairs whose embeddings are finite and not zero, shape (n,).
        single: Embeddings of single views and captions; None if only means are stored.
        labels: Class of each pair, shape (n,); None without labels.
        head: The model's class head on image embeddings, if it has one.
    """

    image: Float[Tensor, "n d"]
    text: Float[Tensor, "n d"]
    ok: Bool[Tensor, " n"]
    single: Embeddings | None = None
    labels: Int[Tensor, " n"] | None = None
    head: Head | None = None

    def select(self, rows: Int[Tensor, " k"]) -> "Means":
        """Return the embeddings of some pairs, in the order of `rows`."""
        single = self.single and chosen(self.single, rows)
        labels = None if self.labels is None else self.labels[rows]
        return Means(self.image[rows], self.text[rows], self.ok[rows], single, labels, self.head)


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


def stack(parts: Sequence[Means]) -> Means:
    """Return the embeddings of the pairs of one part after another; of none without parts."""
    if len(parts) == 1:
        return parts[0]
    if not parts:
        return Means(torch.zeros(0, 1), torch.zeros(0, 1), torch.zeros(0, dtype=torch.bool))
    image, text, ok = map(torch.cat, zip(*(part[:3] for part in parts), strict=True))
    single = [part.single for part in parts if part.single is not None]
    return Means(image, text, ok, _stacked(single) if len(single) == len(parts) else None)


def _stacked(parts: Sequence[Embeddings]) -> Embeddings:
    start, shifted = 0, list[Embeddings]()
    for part in parts:
        arrays = part._asdict().items()
        owners = {name: array + start for name, array in arrays if name.endswith("_pair") and array is not None}
        shifted.append(part._replace(**owners))
        start += len(part.image)
    return join(shifted)


def _largest(rows: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch"]:
    """Return max |x| of each row; NaN if a value is NaN."""
    return torch.linalg.vector_norm(rows, ord=float("inf"), dim=-1)
