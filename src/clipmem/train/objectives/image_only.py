"""Objectives on images: SimCLR (Chen et al. 2020), and supervised classification by a linear head on the embedding.

With the recipe's default views SimCLR's task is too easy to learn much from. Its views of small images are
train.crop_scale = [0.08, 1.0], flip = 0.5, color = 0.5 and grayscale = 0.2 (appendices A and B.9); those of photographs
have color = 1.0 and blur = 0.5.
"""
# ruff: noqa: ARG002, ARG003  (an objective uses what it needs of a batch)

import math
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar, cast

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from jaxtyping import Float
from torch import Tensor, nn

from clipmem.base.random import uniform
from clipmem.base.sections import TrainSection
from clipmem.models.protocol import TrainableEncoder, embedding_width
from clipmem.train.distributed import nt_xent_share
from clipmem.train.objectives.base import OBJECTIVES, Images, Labels, Objective, Texts, Towers


@OBJECTIVES.register("simclr")
class SimClr(Objective):
    """NT-Xent on the image embeddings (see `nt_xent`).

    The projection head is the linear projection of the image tower. Chen et al. find a two-layer head better (section
    4.2), but then the tower would not be the same for all objectives.
    """

    uses_text: ClassVar[bool] = False
    views: ClassVar[int] = 2
    shares: ClassVar[bool] = True

    def __init__(self, temperature: float) -> None:
        super().__init__()
        self.temperature = temperature

    @classmethod
    def create(cls, encoder: TrainableEncoder, settings: TrainSection, *, classes: int, seed: int) -> "SimClr":
        return cls(settings.simclr_temperature)

    def forward(self, encoder: Towers, views: Sequence[Images], tokens: Texts, labels: Labels) -> Float[Tensor, ""]:
        # one pass, so that both views share batch norm averages, as in SimCLR
        first, second = encoder.encode_image(torch.cat(list(views))).chunk(2)
        u, v = encoder.unit("image", first), encoder.unit("image", second, view=1)
        if encoder.world.size > 1:
            return nt_xent_share(u, v, self.temperature, encoder.world)
        return nt_xent(u, v, self.temperature)


def nt_xent(first: Float[Tensor, "n d"], second: Float[Tensor, "n d"], temperature: float) -> Float[Tensor, ""]:
    """Return the normalized temperature-scaled cross entropy.

    With z the 2n normalized embeddings of both views, l(i, j) = -log(exp(z_i·z_j / t) / Σ_{k≠i} exp(z_i·z_k / t));
    the loss is the mean of l over the 2n ordered pairs of two views of one image (Chen et al. 2020, equation 1).
    """
    n = len(first)
    z = torch.cat([first, second])
    itself = torch.eye(2 * n, dtype=torch.bool, device=z.device)
    logits = (z @ z.T / temperature).masked_fill(itself, -torch.inf)
    partner = torch.arange(2 * n, device=z.device).roll(n)
    return F.cross_entropy(logits, partner)


@OBJECTIVES.register("supervised")
class Supervised(Objective):
    """Cross entropy of a linear head: for embeddings e, -1/n Σ_i log softmax(W e_i + b)[label_i].

    The embeddings are not normalized. W starts uniform in ±1/√d, as in torch's linear layers, and b at 0. The initial
    row of a class depends only on the seed and the class.
    """

    needs_labels: ClassVar[bool] = True
    uses_text: ClassVar[bool] = False
    class_head: ClassVar[bool] = True
    normalizes: ClassVar[bool] = False
    shares: ClassVar[bool] = True

    def __init__(self, width: int, classes: int, *, seed: int) -> None:
        super().__init__()
        draws = uniform(np.arange(classes, dtype=np.uint64), seed, width)
        # not `nn.Linear`, which uses the global random state
        self.weight = nn.Parameter(torch.from_numpy(((2 * draws - 1) / math.sqrt(width)).astype(np.float32)))
        self.bias = nn.Parameter(torch.zeros(classes))

    @classmethod
    def create(cls, encoder: TrainableEncoder, settings: TrainSection, *, classes: int, seed: int) -> "Supervised":
        return cls(embedding_width(encoder), classes, seed=seed)

    @classmethod
    def head_of(cls, state: Mapping[str, Tensor]) -> Callable[[Tensor], Tensor] | None:
        if set(state) != {"weight", "bias"}:
            return None
        classes, width = state["weight"].shape
        head = cls(width, classes, seed=0)
        head.load_state_dict(dict(state))
        return head.requires_grad_(requires_grad=False).logits

    def facts(self) -> dict[str, int]:
        return {"classes": len(self.bias)}

    def logits(self, image: Float[Tensor, "n d"]) -> Float[Tensor, "n class"]:
        """Return class scores of image embeddings (not normalized)."""
        return F.linear(image, self.weight, self.bias)

    def forward(self, encoder: Towers, views: Sequence[Images], tokens: Texts, labels: Labels) -> Float[Tensor, ""]:
        # `create_objective` refuses data without labels
        logits = self.logits(encoder.encode_image(views[0]))
        if encoder.world.size > 1:
            counts = encoder.world.counts(len(logits), logits.device)
            return F.cross_entropy(logits, cast(Tensor, labels), reduction="sum") / sum(counts)
        return F.cross_entropy(logits, cast(Tensor, labels))
