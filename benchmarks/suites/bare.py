"""The bare limit of training: `python bare.py FOLDER PAIRS MODEL BATCH PRECISION` prints `RATE pairs/s`."""

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import torch
from workload import emoji

from suites.training import bare_encoder, passes, prepared

_SECONDS = 12.0


def main(folder: str, pairs: str, model: str, batch: str, precision: str) -> None:
    """Run forward and backward passes on batches in memory for some seconds."""
    torch.set_flush_denormal(True)
    torch.use_deterministic_algorithms(mode=True)
    encoder, size = bare_encoder(model), int(batch)
    data = emoji(Path(folder), size=encoder.image_size, pairs=int(pairs))
    batches = prepared(encoder, data, size, 8)
    done, began = -2, 0.0
    while True:
        if done == 0:
            began = time.perf_counter()
        passes(encoder, batches[done % len(batches)], precision)
        encoder.module.zero_grad(set_to_none=True)
        done += 1
        if done > 3 and time.perf_counter() - began > _SECONDS:
            break
    print(f"RATE {done * size / (time.perf_counter() - began)}")


if __name__ == "__main__":
    main(*sys.argv[1:])
