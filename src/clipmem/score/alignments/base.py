"""What an alignment is given: one model's embeddings, the bank, and, where there are some, labels and a class head."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from clipmem.embed.passes import Embeddings
from clipmem.functional import AlignmentParts

Head = Callable[[Float[Tensor, "n d"]], Float[Tensor, "n class"]]


@dataclass(frozen=True)
class Context:
    """Everything about one model that an alignment may look at; rows follow the split table.

    Attributes:
        embeddings: The pairs' embeddings, not normalised.
        bank: Rows of the pairs that are the bank, shape (k,).
        member: Place of each pair in the bank, -1 for those that are not in it, shape (n,).
        labels: Class of each pair, shape (n,); None where the data has no labels.
        head: Gives the model's class scores of image embeddings; None for a model without a class head.
    """

    embeddings: Embeddings
    bank: Int[Tensor, " k"]
    member: Int[Tensor, " n"]
    labels: Int[Tensor, " n"] | None = None
    head: Head | None = None


Alignment = Callable[[Context], AlignmentParts]


def one_part(values: Float[Tensor, " n"]) -> AlignmentParts:
    """Return the parts of an alignment in which no bank takes part."""
    nothing = torch.zeros_like(values)
    return AlignmentParts(values, nothing, nothing.clone())
