"""The objective `one-way`: each image must find its caption, and no caption its image."""

import torch
import torch.nn.functional as F
from pydantic import Field

from clipmem.base.sections import Below1, Section
from clipmem.train.objectives.base import Objective


class OneWay(Objective):
    """Cross entropy of images over the batch's captions, CE(s u vᵀ, identity)."""

    summary = "Each image must find its caption among the batch's."
    softmax = True

    class Settings(Section):
        """`[train.one_way]`."""

        smoothing: Below1 = Field(
            0.0, description="Share of the target that all captions of the batch have in equal parts."
        )

    def __init__(self, smoothing):
        super().__init__()
        self.smoothing = smoothing

    @classmethod
    def create(cls, encoder, settings, *, classes, seed):
        return cls(settings.one_way.smoothing)

    def forward(self, encoder, views, tokens, labels):
        image, text = encoder.encode_image(views[0]), encoder.encode_text(tokens)
        logits = encoder.logit_scale() * encoder.unit("image", image) @ encoder.unit("text", text).T
        return F.cross_entropy(logits, torch.arange(len(logits)).to(logits.device), label_smoothing=self.smoothing)
