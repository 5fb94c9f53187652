"""Training with a compact vocabulary (`models/vocabulary.py`) against training every row of the token table.

One process with one thread runs steps of forward, loss, backward and AdamW on batches in memory, with trimmed captions
on both sides. A ratio below 1.3 is a reason to remove the mechanism.
"""

import time
from collections.abc import Callable
from pathlib import Path

import torch
from timing import Row, in_turn

from clipmem.models import openclip
from clipmem.models.numerics import computing
from clipmem.models.openclip import OpenClipEncoder, contrastive_loss

_WORDS = ("a red square", "two dogs on a beach in the sun", "grinning cat face with smiling eyes", "a train")


def measure(folder: Path, *, rounds: int, before: str, device: str, smallest: bool) -> list[Row]:  # noqa: ARG001
    """Compare on the demo's model, in both precisions and in small batches."""
    torch.set_num_threads(1)
    rows: list[Row] = []
    cases = [("clipmem-tiny", 128, "fp32", 6), ("clipmem-tiny", 128, "bf16", 6), ("clipmem-tiny", 16, "bf16", 24)]
    for name, batch, precision, steps in [("clipmem-micro", 4, "bf16", 1)] if smallest else cases:
        rows.append(
            in_turn(
                "passes",
                f"{name}, batches of {batch}, {precision}: compact vocabulary",
                "bare",
                _steps(name, batch, precision, steps, compact=True),
                _steps(name, batch, precision, steps, compact=False),
                unit="pairs/s",
                rounds=rounds,
                more_is_better=True,
            )
        )
    return rows


def _steps(name: str, batch: int, precision: str, steps: int, *, compact: bool) -> Callable[[], float]:
    """Return a function that trains a new model for some steps and returns the pairs per second."""
    encoder = openclip.create(name, seed=0)
    captions = [_WORDS[k % len(_WORDS)] for k in range(batch)]
    tokens = encoder.tokenize(captions)
    pixels = torch.randn(batch, 3, encoder.image_size, encoder.image_size)
    if compact:
        encoder.compact_vocabulary(tokens)
    optimizer = torch.optim.AdamW(encoder.module.parameters(), lr=1e-4, fused=True)

    def run() -> float:
        _step(encoder, optimizer, pixels, tokens, precision)
        started = time.perf_counter()
        for _ in range(steps):
            _step(encoder, optimizer, pixels, tokens, precision)
        return batch * steps / (time.perf_counter() - started)

    return run


def _step(
    encoder: OpenClipEncoder,
    optimizer: torch.optim.Optimizer,
    pixels: torch.Tensor,
    tokens: torch.Tensor,
    precision: str,
) -> None:
    optimizer.zero_grad(set_to_none=True)
    with computing(precision, "cpu", tokens=encoder.tokens):
        image = torch.nn.functional.normalize(encoder.encode_image(pixels), dim=-1)
        text = torch.nn.functional.normalize(encoder.encode_text(tokens), dim=-1)
    contrastive_loss(image.float(), text.float(), encoder.logit_scale()).backward()
    torch.nn.utils.clip_grad_norm_(encoder.module.parameters(), 1.0)
    optimizer.step()
