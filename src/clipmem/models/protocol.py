"""`DualEncoder`: the interface of models for training, embedding and scoring."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from clipmem.data.decoding import Geometry, Interpolation, ResizeMode

Rows = Float[Tensor, "n d"]  # embeddings
Scalar = Float[Tensor, ""]
Tokens = Int[Tensor, "n length"]  # of captions


@runtime_checkable
class DualEncoder(Protocol):
    """An image tower and a text tower with one embedding space.

    `image_size` (pixels), `resize_mode` and `interpolation` are the geometry of its images (see `Geometry`); pixels in
    [0, 1] must be normalized by `mean` and `std` per channel.
    """

    image_size: int
    resize_mode: ResizeMode
    interpolation: Interpolation
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    @property
    def module(self) -> nn.Module:
        """The underlying model, whose parameters are trained and hashed."""
        ...

    def tokenize(self, captions: Sequence[str]) -> Tokens:
        """Return the padded token ids of captions, for `encode_text`."""
        ...

    def encode_image(self, pixels: Float[Tensor, "n 3 size size"]) -> Rows:
        """Embed images of normalized pixels; the embeddings are not normalized."""
        ...

    def encode_text(self, tokens: Tokens) -> Rows:
        """Embed captions; the embeddings are not normalized."""
        ...

    def logit_scale(self) -> Scalar:
        """The factor by which similarities become logits (already exponentiated)."""
        ...

    def save(self, folder: Path) -> list[Path]:
        """Write config and weights in the format of the model's library; return the files."""
        ...


class TrainableEncoder(DualEncoder, Protocol):
    """A `DualEncoder` that the training loop can train; a class may inherit what is the same for most models."""

    @property
    def context(self) -> int:
        """Length of the longest caption, in tokens."""
        ...

    @property
    def tokens(self) -> int:
        """Length of the longer of the two towers' sequences."""
        ...

    def trim(self, tokens: Tokens) -> Int[Tensor, "n short"]:
        """Cut the padding of a batch that `encode_text` does not need."""
        return trim(tokens)

    def is_image_parameter(self, name: str) -> bool:
        """Return whether a parameter of the module belongs to the image tower."""
        ...

    def logit_scale(self) -> Scalar:
        """The factor by which similarities become logits: the exponential of the module's parameter `logit_scale`."""
        module: Any = self.module
        return module.logit_scale.exp().reshape(())

    def set_logit_scale(self, value: float) -> None:
        """Set the factor by which similarities become logits."""
        module: Any = self.module
        with torch.no_grad():
            module.logit_scale.fill_(math.log(value))

    def compact_vocabulary(self, used: Int[Tensor, "m length"]) -> str:
        """Keep only the embedding rows of the tokens in `used` until `expand_vocabulary`; return the table's name.

        An encoder that cannot do this returns "" and changes nothing, as here.
        """
        del used
        return ""

    def expand_vocabulary(self, decay: float = 1.0) -> None:
        """Restore the whole embedding table; unused rows are multiplied by `decay`."""

    def compile(self) -> None:
        """Compile the passes of both towers."""
        ...


def trim(tokens: Tokens) -> Int[Tensor, "n short"]:
    """Drop the columns that are padding (0) in every row, but keep at least one."""
    used = (tokens != 0).any(dim=0)
    longest = int(used.nonzero().max()) + 1 if bool(used.any()) else 1
    return tokens[:, :longest]


def softmax_scale(encoder: DualEncoder) -> float | None:
    """Return the exponentiated logit scale; None for a model with a logit bias, whose loss is not a softmax."""
    return None if getattr(encoder.module, "logit_bias", None) is not None else float(encoder.logit_scale().detach())


def embedding_width(encoder: DualEncoder) -> int:
    """Return the width of the embeddings, from a pass of an empty image.

    The pass is in evaluation mode, so it changes neither the random state nor batch norm averages.
    """
    before = encoder.module.training
    device = next(encoder.module.parameters()).device
    try:
        encoder.module.eval()
        with torch.inference_mode():
            empty = torch.zeros(1, 3, encoder.image_size, encoder.image_size, device=device)
            return encoder.encode_image(empty).shape[1]
    finally:
        encoder.module.train(before)


def geometry_of(encoder: DualEncoder) -> Geometry:
    """Return the image geometry of a model."""
    return Geometry(encoder.image_size, encoder.resize_mode, encoder.interpolation)


def three(values: Any) -> tuple[float, float, float]:
    """Read channel statistics from a config: one number for all channels, or three."""
    red, green, blue = values if isinstance(values, list | tuple) else (values,) * 3
    return float(red), float(green), float(blue)
