"""Train one model like a training process of a study and print the rate.

`python ours.py FOLDER SIZE PAIRS coco|short MODEL BATCH EPOCHS PRECISION [cpu|cuda] [off|on]`: last, `train.compile`.
"""

import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
import workload
from torch.utils import deterministic

from clipmem.base.sections import TrainSection
from clipmem.models.numerics import keep_memory
from clipmem.models.openclip import create
from clipmem.train.batches import TrainingData
from clipmem.train.loop import Session, train
from clipmem.train.objectives import Towers
from clipmem.train.paired import TrainingSet


def as_in_a_study(device: str) -> None:
    """Configure this process like a training process of a study."""
    torch.set_flush_denormal(True)
    keep_memory()
    torch.use_deterministic_algorithms(mode=device == "cpu")
    deterministic.fill_uninitialized_memory = False  # pyright: ignore[reportAttributeAccessIssue]


def main(
    folder: str,
    size: str,
    pairs: str,
    coco: str,
    model: str,
    batch: str,
    epochs: str,
    precision: str,
    device: str = "cpu",
    compiled: str = "off",
) -> None:
    """Train and print `RATE pairs/s`, measured from the first report to the last."""
    data = workload.emoji(Path(folder), size=int(size), pairs=int(pairs), coco=coco == "coco")
    as_in_a_study(device)
    settings = TrainSection.model_validate(
        {"batch_size": int(batch), "epochs": int(epochs), "lr": 1e-3, "compile": compiled}
    )
    reports = [(0, time.perf_counter())]
    with tempfile.TemporaryDirectory() as out:
        train(
            Towers(create(model, seed=0), precision, device),
            TrainingData(data.pixels, np.arange(len(data.uids)), [[text] for text in data.captions]),
            TrainingSet("f", 0, tuple(data.uids), len(data.uids)),
            settings,
            Path(out),
            Session(
                ahead=2 if device == "cuda" else 0,
                progress=lambda step, *_: reports.append((step, time.perf_counter())),
            ),
        )
    # compilation is in the first epoch
    after = 0 if compiled == "off" else -(-int(pairs) // int(batch))
    later = [report for report in reports if report[0] > after]
    # a training of a few steps reports once: it is timed from its start
    (first, began), (last, ended) = (later if len(later) > 1 else reports)[0], reports[-1]
    print(f"RATE {(last - first) * int(batch) / (ended - began)}")


if __name__ == "__main__":
    main(*sys.argv[1:])
