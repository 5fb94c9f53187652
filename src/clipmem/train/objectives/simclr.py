"""SimCLR (Chen et al. 2020): contrast two random views of each image in a batch.

With the recipe's default views the task is too easy to learn much from. SimCLR's views of small images are
train.crop_scale = [0.08, 1.0], flip = 0.5, color = 0.5 and grayscale = 0.2 (appendices A and B.9); those of photographs
have color = 1.0 and blur = 0.5.
"""

from collections.abc import Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F  # noqa: N812
from jaxtyping import Float, Int
from torch import Tensor

from clipmem.base.sections import TrainSection
from clipmem.models.protocol import TrainableEncoder
from clipmem.train.distributed import nt_xent_share
from clipmem.train.objectives.base import OBJECTIVES, Images, Objective, Texts, Towers


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
    def create(cls, encoder: TrainableEncoder, settings: TrainSection, *, classes: int, seed: int) -> "SimClr":  # noqa: ARG003
        return cls(settings.simclr_temperature)

    def forward(
        self,
        encoder: Towers,
        views: Sequence[Images],
        tokens: Texts,  # noqa: ARG002
        labels: Int[Tensor, " n"] | None,  # noqa: ARG002
    ) -> Float[Tensor, ""]:
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
