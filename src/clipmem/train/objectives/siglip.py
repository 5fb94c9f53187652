"""SigLIP (Zhai et al. 2023): classify every image and caption of a batch as matching or not."""

from collections.abc import Sequence
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from clipmem.models.openclip import sigmoid_loss
from clipmem.models.protocol import TrainableEncoder
from clipmem.train.distributed import sigmoid_share
from clipmem.train.objectives.base import OBJECTIVES, Images, Objective, Texts, Towers

START_SCALE, START_BIAS = 10.0, -10.0


@OBJECTIVES.register("siglip")
class SigLip(Objective):
    """The pairwise sigmoid loss, open_clip's `SigLipLoss`.

    For the batch's normalized embeddings u, v, scale s and bias b, -1/n Σ_i Σ_j log sigmoid(z_ij (s u_i·v_j + b)), with
    z_ij = 1 for i = j and -1 otherwise (Zhai et al. 2023, equation 1). As there, s starts at 10 and b at -10, except in
    models with a `logit_bias` of their own, such as a pretrained SigLIP: they keep both, and get the trained bias back.
    The bias does not change which caption is nearest.
    """

    shares: ClassVar[bool] = True

    def __init__(self) -> None:
        super().__init__()
        self.logit_bias = nn.Parameter(torch.tensor(START_BIAS))

    def prepare(self, encoder: TrainableEncoder) -> None:
        bias, scale = _own_bias(encoder), getattr(encoder.module, "logit_scale", None)
        if bias is not None:
            self.logit_bias.data.copy_(bias.detach().reshape(()))
        elif scale is not None and scale.requires_grad:
            encoder.set_logit_scale(START_SCALE)

    def finish(self, encoder: TrainableEncoder) -> None:
        if (bias := _own_bias(encoder)) is not None:
            bias.data.fill_(self.logit_bias.item())

    def forward(
        self,
        encoder: Towers,
        views: Sequence[Images],
        tokens: Texts,
        labels: Int[Tensor, " n"] | None,  # noqa: ARG002
    ) -> Float[Tensor, ""]:
        image, text = encoder.encode_image(views[0]), encoder.encode_text(tokens)
        u, v = encoder.unit("image", image), encoder.unit("text", text)
        if encoder.world.size > 1:
            return sigmoid_share(u, v, encoder.logit_scale(), self.logit_bias, encoder.world)
        return sigmoid_loss(u, v, encoder.logit_scale(), self.logit_bias)


def _own_bias(encoder: TrainableEncoder) -> Tensor | None:
    return getattr(encoder.module, "logit_bias", None)
