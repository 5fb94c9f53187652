"""What `tests/e2e/test_torchrun.py` starts with torchrun: every objective by all processes and by each one alone.

Each process writes what it found into OUT/rank-K.json: gradients of one batch both ways, losses of a whole training
both ways, and the hash of the weights it ended with.
"""

import json
import os
import sys
from datetime import timedelta
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist

from clipmem.base.sections import TrainSection
from clipmem.data.decoding import decode
from clipmem.models import openclip
from clipmem.train.batches import TrainingData
from clipmem.train.distributed import ALONE, World
from clipmem.train.loop import train
from clipmem.train.objectives import Towers, create_objective
from clipmem.train.paired import TrainingSet
from clipmem.train.record import state_hash
from tests.tiny import encoded_image

N = 38  # batches of 13, 13 and 12: neither divides by 3 without a rest
UIDS = tuple(f"{(k + 1) * 0x9E3779B97F4A7C15 % 2**64:016x}{k:016x}" for k in range(N))
LABELS = np.arange(N) % 5


def data():
    pixels = np.stack([decode(encoded_image(k), size=32, name=str(k)) for k in range(N)])
    captions = [[f"thing number {k}", f"number {k}" + " and more" * (k % 4)] for k in range(N)]
    return TrainingData(pixels, np.arange(N), captions, LABELS, 5)


def settings(objective):
    return TrainSection(
        objective=objective,
        epochs=3,
        batch_size=13,
        captions=2,
        crop_scale=(0.3, 0.9),
        flip=0.5,
        precision="fp32",
        record=objective in ("clip", "siglip"),
    )


def gradients(name, world):
    """Loss and gradients of one batch of 13 pairs, this process having its share of them."""
    torch.manual_seed(0)
    encoder = openclip.create("clipmem-micro", seed=7)
    objective = create_objective(encoder, settings(name), labels=LABELS, classes=5, n=N, seed=3)
    objective.prepare(encoder)
    rows = world.share(np.arange(13))
    views = [torch.randn(13, 3, 32, 32)[rows] for _ in range(objective.views)]
    tokens = encoder.tokenize([f"thing number {k}" + " and more" * (k % 3) for k in range(13)])[rows]
    trained = [
        (key, p) for key, p in encoder.module.named_parameters() if objective.uses_text or key.startswith("visual.")
    ] + list(objective.named_parameters(prefix="objective"))
    towers = Towers(encoder, "fp32", "cpu", world)
    compute = world.loss_function(objective, trained)
    loss = compute(towers, views, tokens, torch.from_numpy(LABELS[:13])[rows])
    loss.backward()
    return float(world.mean(loss.detach())), {key: p.grad.clone() for key, p in trained}


def trained(name, world, folder):
    encoder = openclip.create("clipmem-micro", seed=7)
    train(Towers(encoder, world=world), data(), TrainingSet("f", 1, UIDS, N), settings(name), folder)
    return encoder


def losses(folder):
    return [json.loads(line)["loss"] for line in (folder / "log.jsonl").read_text().splitlines()]


def main(out):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", timeout=timedelta(minutes=3))
    world = World(int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]))
    found = {}
    for name in ("clip", "siglip", "simclr", "supervised"):
        whole, parts = gradients(name, ALONE), gradients(name, world)
        folders = out / name / f"alone-{world.rank}", out / name / "together"
        alone, together = trained(name, ALONE, folders[0]), trained(name, world, folders[1])
        dist.barrier()
        found[name] = {
            "loss": [whole[0], parts[0]],
            "gradient": max(float((parts[1][key] - g).abs().max()) for key, g in whole[1].items()),
            "largest": max(float(g.abs().max()) for g in whole[1].values()),
            "losses": [losses(folder) for folder in folders],
            "weights": [state_hash(alone.module), state_hash(together.module)],
        }
    (out / f"rank-{world.rank}.json").write_text(json.dumps(found))
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
