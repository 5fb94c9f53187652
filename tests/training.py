"""A plain loop that trains the smallest model on pairs until it has memorized them, and makes it forget some."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from clipmem.data.decoding import decode
from clipmem.data.views import as_float, normalize_pixels
from clipmem.models.openclip import OpenClipEncoder, contrastive_loss
from clipmem.stats.similarity import normalize

BATCH = 64


class Prepared(NamedTuple):
    """Normalized images and tokens of pairs."""

    pixels: Tensor
    tokens: Tensor

    @classmethod
    def of(cls, encoder: OpenClipEncoder, images: Sequence[bytes], captions: Sequence[str]) -> "Prepared":
        """Decode and tokenize pairs as the model does."""
        raw = torch.from_numpy(np.stack([decode(image, encoder.image_size) for image in images]))
        return cls(normalize_pixels(as_float(raw), encoder.mean, encoder.std), encoder.tokenize(captions))


def loss_of(encoder: OpenClipEncoder, pairs: Prepared, rows: Tensor) -> Tensor:
    """Return the contrastive loss of a batch."""
    image, text = encoder.encode_image(pairs.pixels[rows]), encoder.encode_text(pairs.tokens[rows])
    return contrastive_loss(normalize(image), normalize(text), encoder.logit_scale())


def train(
    encoder: OpenClipEncoder, pairs: Prepared, *, steps: int, lr: float, seed: int = 0, forget: Prepared | None = None
) -> None:
    """Train on random batches; with pairs to forget, also by gradient ascent on the loss of a batch of these."""
    stream, module = torch.Generator().manual_seed(seed), encoder.module.train()
    optimizer = torch.optim.AdamW(module.parameters(), lr=lr, weight_decay=0.01)
    for _ in range(steps):
        loss = loss_of(encoder, pairs, torch.randperm(len(pairs.pixels), generator=stream)[:BATCH])
        if forget is not None:
            loss = loss - loss_of(encoder, forget, torch.randperm(len(forget.pixels), generator=stream)[:BATCH])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    module.eval()
