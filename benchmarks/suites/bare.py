"""The bare limit of training: `python bare.py FOLDER PAIRS MODEL BATCH PRECISION DEVICE SECONDS` prints `RATE`."""

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from ours import as_in_a_study
from workload import emoji

from suites.training import bare_encoder, passes, prepared


def main(folder: str, pairs: str, model: str, batch: str, precision: str, device: str, seconds: str) -> None:
    """Run forward and backward passes on batches in memory."""
    as_in_a_study(device)
    encoder, size = bare_encoder(model), int(batch)
    data = emoji(Path(folder), size=encoder.image_size, pairs=int(pairs))
    batches = [
        tuple(one.to(device) for one in batch) for batch in prepared(encoder, data, size, min(8, int(pairs) // size))
    ]
    encoder.module.to(device)
    done, began = -2, 0.0
    while True:
        if done == 0:
            began = time.perf_counter()
        passes(encoder, batches[done % len(batches)], precision, device)
        encoder.module.zero_grad(set_to_none=True)
        done += 1
        if done > 3 and time.perf_counter() - began > float(seconds):
            break
    print(f"RATE {done * size / (time.perf_counter() - began)}")


if __name__ == "__main__":
    main(*sys.argv[1:])
