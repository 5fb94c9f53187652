"""Fine-tuning with frozen towers against full fine-tuning: ViT-B-32, the training loop's own clock.

A frozen tower is embedded once, before the first step: its share of the time depends on the number of epochs, so it is
not part of a step. `steps` is the rate of the steps, of data and computation.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from timing import Row, in_turn

from clipmem.base.sections import TrainSection
from clipmem.models import openclip
from clipmem.train.batches import TrainingData
from clipmem.train.loop import Session, Timing, train
from clipmem.train.objectives import Towers
from clipmem.train.paired import TrainingSet


def measure(folder: Path, *, rounds: int, before: str, device: str, smallest: bool) -> list[Row]:  # noqa: ARG001
    """Compare steps with one tower frozen with steps of the whole model."""
    name, side, pairs, batch = ("clipmem-micro", 32, 8, 4) if smallest else ("ViT-B-32", 224, 32, 16)
    uids = tuple(f"{(k + 1) * 0x9E3779B97F4A7C15 % 2**64:016x}{k:016x}" for k in range(pairs))
    pixels = np.random.default_rng(0).integers(0, 256, (pairs, side, side, 3), dtype=np.uint8)
    captions = [[f"a drawing of thing number {k} in four colors"] for k in range(pairs)]
    data = TrainingData(pixels, np.arange(pairs), captions)

    def rate(*frozen: str) -> Callable[[], float]:
        def run() -> float:
            timing = Timing()
            settings = TrainSection(epochs=2, batch_size=batch, lr=1e-5, freeze=frozen)  # pyright: ignore[reportCallIssue]
            encoder, plan = openclip.create(name, seed=0), TrainingSet("f", 0, uids, pairs)
            precision = "bf16"
            train(Towers(encoder, precision, device), data, plan, settings, folder, Session(timing=timing))
            return timing.rate

        return run

    return [
        in_turn(
            "finetune",
            f"{name}, batches of {batch}, bf16: {tower} tower frozen",
            "full",
            rate(tower),
            rate(),
            unit="pairs/s",
            rounds=rounds,
            more_is_better=True,
        )
        for tower in ("image", "text")
    ]
