"""One training process: `python -m clipmem.study.worker DIR SIDE SEED`. Talks JSON lines to the engine."""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

from clipmem.base.errors import ClipmemError
from clipmem.models.openclip import create
from clipmem.score.protocols import training_set_of
from clipmem.store import manifest
from clipmem.store.folder import RunFolder
from clipmem.study import execution, materials
from clipmem.train.distributed import ALONE, World
from clipmem.train.loop import train


def _say(**message: object) -> None:
    # a broken pipe ends this process too: nobody is left to train for
    print(json.dumps(message), flush=True)  # noqa: T201


def train_one(
    folder: RunFolder, side: str, seed: int, *, say: Callable[..., None] = _say, world: World = ALONE
) -> None:
    """Train one model of a planned study, write it, and then its marker.

    Args:
        folder: The run folder.
        side: The model's side.
        seed: The model's seed.
        say: Told of the progress: step, steps, loss and rate, by name.
        world: The processes that train this model together; the first of them writes.
    """
    started = time.monotonic()
    recipe, how = folder.recipe(), execution.from_manifest(manifest.read(folder))
    torch.set_num_threads(how.threads)
    # this process is ours: AdamW's moments decay into denormals, which are many times slower on CPUs
    torch.set_flush_denormal(True)
    torch.use_deterministic_algorithms(mode=how.device == "cpu")
    material = materials.load(folder, recipe)
    plan = training_set_of(recipe, material.splits, side, seed)
    encoder = create(recipe.model.name, seed=plan.init_seed)
    files = train(
        encoder,
        material.training_data(plan.uids),
        plan,
        recipe.train,
        folder=folder.model_dir(side, seed),
        precision=how.precision,
        device=how.device,
        progress=lambda step, steps, loss, rate: say(step=step, steps=steps, loss=loss, rate=rate),
        world=world,
    )
    if world.rank == 0:
        folder.finish(f"train-{side}-seed-{seed}", files, time.monotonic() - started)


def main(arguments: list[str]) -> int:
    """Run the process; a known error is passed on as a JSON line."""
    path, side, seed = arguments
    try:
        train_one(RunFolder(Path(path)), side, int(seed))
    except ClipmemError as error:
        _say(error=str(error), exit_code=error.exit_code)
        return error.exit_code
    except BrokenPipeError:
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
