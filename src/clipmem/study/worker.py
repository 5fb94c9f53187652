"""A training process: `python -m clipmem.study.worker [DIR SIDE SEED [SIDE SEED]...]`. Talks JSON lines to the engine.

It trains the models of a run folder that are named, in order. With none named it asks for one after another: it writes
`{"ready": true}` and reads `{"directory": ..., "folder": ..., "side": ..., "seed": ..., "ahead": ...}` from its input,
until that ends; relative paths start at the directory. Torch is imported once for all of them, those of other studies
too, and nothing of one training is left for the next: each has its own model and its own random state.

SIGTERM and SIGINT (Ctrl-C goes to the whole process group) end it after the step that it is in, with a checkpoint; so
does the end of the engine's process (see `child`, by which engines start it).
"""

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch.utils import deterministic

from clipmem.base.errors import ClipmemError, InputError
from clipmem.mitigate.base import Training, hooks_of
from clipmem.models.openclip import create
from clipmem.score.protocols import training_set_of
from clipmem.store import manifest
from clipmem.store.folder import RunFolder
from clipmem.study import execution, materials
from clipmem.study.cost import PeakMemory
from clipmem.train.checkpoint import CHECKPOINT_FILE, EVERY, Checkpoints, TrainingStopped
from clipmem.train.distributed import ALONE, World
from clipmem.train.loop import Timing, train
from clipmem.train.numerics import keep_memory

STOPPED = 130
EVERY_VARIABLE = "CLIPMEM_CHECKPOINT_SECONDS"


class Stop:
    """Remembers that this process was asked to end; while it waits for a task it ends at once."""

    def __init__(self) -> None:
        self.asked, self.waiting = False, False

    def install(self) -> None:
        """Listen to SIGTERM and SIGINT."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._receive)

    def _receive(self, *_: object) -> None:
        self.asked = True
        if self.waiting:
            raise TrainingStopped


def _say(**message: object) -> None:
    print(json.dumps(message), flush=True)  # noqa: T201


def train_one(
    folder: RunFolder,
    side: str,
    seed: int,
    *,
    stop: Stop | None = None,
    say: Callable[..., None] = _say,
    world: World = ALONE,
    ahead: int = 0,
) -> dict[str, float]:
    """Train one model of a planned study, write it, and then its marker.

    Args:
        folder: The run folder.
        side: The model's side.
        seed: The model's seed.
        stop: Asked after every step whether to end.
        say: Told of the progress: step, steps, loss, rate and the share of time in which data were made, by name.
        world: The processes that train this model together; the first of them writes.
        ahead: Batches made in advance (see `execution.batches_ahead`); on a GPU there are always some.

    Returns:
        `compute_seconds` and `data_seconds`: where the time went.

    Raises:
        TrainingStopped: The process was asked to end; a checkpoint is written.
    """
    started, timing, stop = time.monotonic(), Timing(), stop or Stop()
    recipe, how = folder.recipe(), execution.from_manifest(manifest.read(folder))
    torch.set_num_threads(how.threads)
    memory = PeakMemory(how.device)
    # this process is ours: AdamW's moments decay into denormals, which are many times slower on CPUs
    torch.set_flush_denormal(True)
    torch.use_deterministic_algorithms(mode=how.device == "cpu")
    # deterministic mode also fills all new memory with NaN, for those who read it unwritten: 4 % of a step
    deterministic.fill_uninitialized_memory = False  # pyright: ignore[reportAttributeAccessIssue]
    material = materials.load(folder, recipe)
    plan = training_set_of(recipe, material.splits, side, seed)
    encoder = create(recipe.model.name, seed=plan.init_seed)
    directory = folder.model_dir(side, seed)
    checkpoints = Checkpoints(directory / CHECKPOINT_FILE, _every(), lambda: stop.asked)

    def tell(step: int, steps: int, loss: float, rate: float) -> None:
        try:
            say(step=step, steps=steps, loss=loss, rate=rate, data=timing.data_share)
        except BrokenPipeError:
            # nobody is left to train for: keep what there is
            sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115
            stop.asked = True

    files = train(
        encoder,
        material.training_data(plan.uids),
        plan,
        recipe.train,
        folder=directory,
        precision=how.precision,
        device=how.device,
        progress=tell,
        checkpoints=checkpoints,
        timing=timing,
        world=world,
        ahead=ahead or execution.batches_ahead(how, 1) * (how.device == "cuda"),
        hooks=hooks_of(Training(recipe, plan, folder, material.splits)),
    )
    spent = {"data_seconds": round(timing.data, 3), "compute_seconds": round(timing.compute, 3)}
    if world.rank == 0:
        # pairs: those of this process, fewer than the record's presentations after a stop
        measured = {
            "pairs": float(timing.pairs),
            "pairs_per_second": round(timing.rate, 1),
            **spent,
            **memory.measured(),
        }
        folder.finish(f"train-{side}-seed-{seed}", files, time.monotonic() - started, measured)
        checkpoints.file.unlink(missing_ok=True)
        say(done=True, **spent)
    return spent


def _every() -> float:
    """Return the seconds between two checkpoints."""
    text = os.environ.get(EVERY_VARIABLE, "")
    try:
        return float(text or EVERY)
    except ValueError:
        raise InputError(
            f"environment variable {EVERY_VARIABLE}", got=repr(text), expected="a number of seconds", hint="Unset it."
        ) from None


def _tasks(named: list[str], stop: Stop) -> Iterator[tuple[RunFolder, str, int, int]]:
    """Give run folder, side, seed and the number of batches to make ahead of one training after another."""
    if named:
        folder, models = RunFolder(Path(named[0])), named[1:]
        yield from ((folder, side, int(seed), 0) for side, seed in zip(models[::2], models[1::2], strict=True))
        return
    while True:
        stop.waiting = True
        _say(ready=True)
        line = "" if stop.asked else sys.stdin.readline()
        stop.waiting = False
        if not line.strip():
            return
        task = json.loads(line)
        os.chdir(task.get("directory", "."))
        yield RunFolder(Path(task["folder"])), task["side"], task["seed"], task.get("ahead", 0)


def main(arguments: list[str]) -> int:
    """Run the process; a known error is passed on as a JSON line."""
    stop = Stop()
    stop.install()
    keep_memory()
    try:
        for folder, side, seed, ahead in _tasks(arguments, stop):
            train_one(folder, side, seed, stop=stop, ahead=ahead)
            if stop.asked:
                return STOPPED
    except ClipmemError as error:
        _say(error=str(error), exit_code=error.exit_code)
        return error.exit_code
    except TrainingStopped:
        return STOPPED
    except BrokenPipeError:
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
