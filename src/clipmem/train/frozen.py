"""Frozen towers: embedded once before training instead of in every step.

The image tower embeds the unchanged image: a random crop would need a new pass in every epoch. The text tower embeds
every caption that training draws from. Both are in evaluation mode, in the precision of the training.
"""

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from clipmem.data.views import as_float, normalize_pixels, send
from clipmem.train.hooks import Kind
from clipmem.train.objectives.base import Towers

_BATCH = 128


def embed_frozen(
    towers: Towers,
    pixels: UInt8[np.ndarray, "rows size size 3"],
    rows: Int[np.ndarray, " n"],
    tokens: Int[Tensor, "m length"],
) -> dict[Kind, Float[Tensor, "k d"]]:
    """Return the embeddings of the frozen towers: those of the images at `rows`, and of all texts; not normalized."""
    encoder, device = towers.encoder, towers.device
    live = Towers(encoder, towers.precision, device)

    def image(part: slice) -> Tensor:
        values = as_float(send(torch.from_numpy(pixels[rows[part]]), device))
        return live.encode_image(normalize_pixels(values, encoder.mean, encoder.std, in_place=True))

    def text(part: slice) -> Tensor:
        return live.encode_text(send(encoder.trim(tokens[part]), device))

    modes, embeddings = [(module, module.training) for module in encoder.module.modules()], dict[Kind, Tensor]()
    encoder.module.eval()
    with torch.no_grad():
        if "image" in towers.frozen:
            embeddings["image"] = _in_batches(image, len(rows))
        if "text" in towers.frozen:
            embeddings["text"] = _in_batches(text, len(tokens))
    for module, training in modes:
        module.training = training
    return embeddings


def _in_batches(embed: Callable[[slice], Tensor], n: int) -> Tensor:
    return torch.cat([embed(slice(start, start + _BATCH)).cpu() for start in range(0, n, _BATCH)])
