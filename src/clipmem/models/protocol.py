"""`DualEncoder`: what training, embedding and scoring need of a model, whichever library it comes from."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from jaxtyping import Float, Int
from torch import Tensor, nn

from clipmem.base.images import Geometry, Interpolation, ResizeMode


@runtime_checkable
class DualEncoder(Protocol):
    """An image tower and a text tower with one embedding space.

    `image_size` is the side in pixels of the images that the image tower takes, `resize_mode` and `interpolation` say
    how they are made (see `Geometry`); `mean` and `std` are the channel statistics by which pixels in [0, 1] must be
    normalized first.
    """

    image_size: int
    resize_mode: ResizeMode
    interpolation: Interpolation
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    @property
    def module(self) -> nn.Module:
        """The underlying model: its parameters are what is trained and hashed."""
        ...

    def tokenize(self, captions: Sequence[str]) -> Int[Tensor, "n length"]:
        """Turn captions into the rows that `encode_text` takes: token ids, padded as the text tower needs it."""
        ...

    def encode_image(self, pixels: Float[Tensor, "n 3 size size"]) -> Float[Tensor, "n d"]:
        """Embed normalized images; the embeddings are not normalized."""
        ...

    def encode_text(self, tokens: Int[Tensor, "n length"]) -> Float[Tensor, "n d"]:
        """Embed captions; the embeddings are not normalized."""
        ...

    def logit_scale(self) -> Float[Tensor, ""]:
        """The factor by which similarities become logits (already exponentiated)."""
        ...

    def save(self, folder: Path) -> list[Path]:
        """Write config and weights so that the model's own library loads the folder; return the files."""
        ...


def geometry_of(encoder: DualEncoder) -> Geometry:
    """Return how the images of a model are made from any image."""
    return Geometry(encoder.image_size, encoder.resize_mode, encoder.interpolation)


def three(values: Any) -> tuple[float, float, float]:
    """Read channel statistics from a config: one number for all channels, or three."""
    red, green, blue = values if isinstance(values, list | tuple) else (values,) * 3
    return float(red), float(green), float(blue)
