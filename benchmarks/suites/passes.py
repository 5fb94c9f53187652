"""Training with clipmem's own passes (`models/shortcut.py`) and compact vocabulary against open_clip's.

One process with one thread runs steps of forward, loss, backward and AdamW on batches in memory, with trimmed captions
on both sides. A ratio below 1.3 is a reason to remove the mechanism.
"""

import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from unittest import mock

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
        for case, off in (("own passes", "passes"), ("compact vocabulary", "vocabulary")):
            rows.append(
                in_turn(
                    "passes",
                    f"{name}, batches of {batch}, {precision}: {case}",
                    "bare",
                    _steps(name, batch, precision, steps, off=""),
                    _steps(name, batch, precision, steps, off=off),
                    unit="pairs/s",
                    rounds=rounds,
                    more_is_better=True,
                )
            )
    return rows


def _steps(name: str, batch: int, precision: str, steps: int, *, off: str) -> Callable[[], float]:
    """Return a function that trains a new model for some steps and returns the pairs per second."""
    encoder = openclip.create(name, seed=0)
    captions = [_WORDS[k % len(_WORDS)] for k in range(batch)]
    tokens = encoder.tokenize(captions)
    pixels = torch.randn(batch, 3, encoder.image_size, encoder.image_size)
    if off != "vocabulary":
        encoder.compact_vocabulary(tokens)
    optimizer = torch.optim.AdamW(encoder.module.parameters(), lr=1e-4, fused=True)

    def run() -> float:
        with _without(off):
            _step(encoder, optimizer, pixels, tokens, precision)
            started = time.perf_counter()
            for _ in range(steps):
                _step(encoder, optimizer, pixels, tokens, precision)
            return batch * steps / (time.perf_counter() - started)

    return run


def _without(off: str) -> contextlib.AbstractContextManager[object]:
    if off != "passes":
        return contextlib.nullcontext()
    return mock.patch.multiple(openclip, image_pass=lambda *_: None, text_pass=lambda *_: None)


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
