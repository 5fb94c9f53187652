"""Tasks of processes: train a model of a run folder, embed its pairs, or do a part of other work."""

import contextlib
import os
import time
from collections.abc import Callable, Generator
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch.utils import deterministic

from clipmem.base import machine
from clipmem.base.errors import InputError
from clipmem.base.folder import RunFolder, refuse_other
from clipmem.mitigate.base import Training, hooks_of, ready_model
from clipmem.models import passes
from clipmem.models.numerics import keep_memory
from clipmem.study import child, execution
from clipmem.study.plan import PlannedStudy
from clipmem.train.checkpoint import CHECKPOINT_FILE, EVERY, Checkpoints, TrainingStopped
from clipmem.train.distributed import ALONE, World, joined
from clipmem.train.loop import Session, Timing, train
from clipmem.train.objectives import Towers
from clipmem.train.paired import TrainingSet
from clipmem.train.record import state_hash, write_changed

EVERY_VARIABLE = "CLIPMEM_CHECKPOINT_SECONDS"
_REPORT = 0.5  # seconds between two progress reports of an embedding


def train_task(board: Path, directory: str, folder: str, side: str, seed: int, ahead: int = 0) -> None:
    """Train one model in a process of the pool, alone or with the others of torch's default group."""
    study, name, world = _opened(board, directory, folder), f"{side}-{seed}", joined()

    def progress(step: int, note: str) -> None:
        if world.rank == 0:
            child.Board(board).put(name, step, note)

    model = study.model(side, seed)
    train_one(study, model, stop=lambda: child.stop_requested(board), progress=progress, world=world, ahead=ahead)


def embed_task(
    board: Path, directory: str, folder: str, side: str, seed: int, part: passes.Part = passes.WHOLE
) -> None:
    """Embed all pairs, or a part, with one model in a process of the pool."""
    study = _opened(board, directory, folder)
    with _reporting(board, f"{side}-{seed}-{part.index}") as progress:
        embed_one(study, study.model(side, seed), part=part, progress=progress)


def part_task(
    board: Path, directory: str, number: int, function: Callable[..., object], arguments: tuple[Any, ...]
) -> None:
    """Call a function that does a part of some work, and takes `progress` besides, in a process of the pool."""
    _begin(board, directory)
    with _reporting(board, f"part-{number}") as progress:
        function(*arguments, progress=progress)


@contextlib.contextmanager
def _reporting(board: Path, name: str) -> Generator[Callable[[int], None]]:
    """Put what a task has done on the board, now and then and at the end; stop the task on request."""
    done, reported = 0, 0.0

    def progress(pairs: int) -> None:
        nonlocal done, reported
        done += pairs
        if child.stop_requested(board):
            raise TrainingStopped
        if time.monotonic() - reported > _REPORT:
            child.Board(board).put(name, done)
            reported = time.monotonic()

    yield progress
    child.Board(board).put(name, done)


def _begin(board: Path, directory: str) -> None:
    if child.stop_requested(board):
        raise TrainingStopped
    with contextlib.suppress(FileNotFoundError):  # another node of a cluster may not have it
        os.chdir(directory)
    keep_memory()


def _opened(board: Path, directory: str, folder: str) -> PlannedStudy:
    _begin(board, directory)
    written_at = (Path(folder) / "splits.parquet").stat().st_mtime_ns  # part of the cache key
    return _study(str(Path(folder).resolve()), written_at)


@lru_cache(maxsize=1)
def _study(folder: str, _: int) -> PlannedStudy:
    return PlannedStudy(folder)


@contextlib.contextmanager
def reproducible(threads: int, device: str) -> Generator[None]:
    """Set threads and deterministic algorithms, and flush denormal numbers (slow in AdamW's moments on CPUs) to 0."""
    count, exact = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    fills = deterministic.fill_uninitialized_memory  # pyright: ignore[reportAttributeAccessIssue]
    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)
    torch.use_deterministic_algorithms(mode=device == "cpu")
    # deterministic mode also fills new memory with NaN, which takes 4% of a step
    deterministic.fill_uninitialized_memory = False  # pyright: ignore[reportAttributeAccessIssue]
    try:
        yield
    finally:
        torch.set_num_threads(count)
        torch.set_flush_denormal(False)
        torch.use_deterministic_algorithms(exact)
        deterministic.fill_uninitialized_memory = fills  # pyright: ignore[reportAttributeAccessIssue]


def train_one(
    study: PlannedStudy,
    model: TrainingSet,
    *,
    stop: Callable[[], bool] = lambda: False,
    progress: Callable[[int, str], object] = lambda step, note: None,  # noqa: ARG005
    world: World = ALONE,
    ahead: int = 0,
) -> None:
    """Train one model of a study; write it and its marker."""
    parent = ready_model(study.recipe, model.side, model.seed)
    if parent is not None:
        if world.rank == 0:
            _change_one(study, model, parent)
        return
    started, timing, recipe, resources = time.monotonic(), Timing(), study.recipe, study.execution
    reset = machine.reset_peak_memory()
    if resources.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    directory = study.folder.model_dir(model.side, model.seed)
    with reproducible(resources.threads, resources.device):
        checkpoints = Checkpoints(directory / CHECKPOINT_FILE, _every(), stop)

        def report(step: int, _: int, loss: float, rate: float) -> None:
            progress(step, f"loss {loss:.2f}, {rate:,.0f} pairs/s per model, data {100 * timing.data_share:.0f}%")

        ahead = ahead or execution.batches_ahead(resources, 1) * (resources.device == "cuda")
        session, encoder = Session(report, checkpoints, timing, ahead), study.start_of(model).create(model.init_seed)
        hooks = hooks_of(Training(recipe, model, study.folder, study.splits))
        towers = Towers(encoder, resources.precision, resources.device, world, hooks)
        files = train(towers, study.training_data(model), model, recipe.train, directory, session)
    if world.rank == 0:
        # `pairs` of this process: fewer than the record's samples seen if resumed
        measured = {"pairs": float(timing.pairs), "pairs_per_second": round(timing.rate, 1)}
        measured |= {"data_seconds": round(timing.data, 3), "compute_seconds": round(timing.compute, 3)}
        took = time.monotonic() - started
        peak = machine.peak_memory(since_reset=reset)
        measured |= {} if peak is None else {"peak_memory_bytes": float(peak)}
        if resources.device == "cuda":
            measured["peak_device_bytes"] = float(torch.cuda.max_memory_allocated())
        study.folder.finish(f"train-{model.side}-seed-{model.seed}", files, took, measured)
        checkpoints.remove()


def _change_one(study: PlannedStudy, model: TrainingSet, parent: Path) -> None:
    """Write a model whose weights are those of a trained model, changed by the mitigations, and its marker."""
    started, folder = time.monotonic(), study.folder.model_dir(model.side, model.seed)
    hooks = hooks_of(Training(study.recipe, model, study.folder, study.splits))
    with reproducible(study.execution.threads, study.execution.device):
        encoder = study.start.trained(parent, model.init_seed)
        initial = study.start.create(model.init_seed).module
        record = RunFolder(parent).read_json("record.json")
        now = {"init_sha256": state_hash(initial), "uids_sha256": model.uids_sha256}
        hint = "Run that study again."
        refuse_other(f"model folder {parent} was trained otherwise", {key: record[key] for key in now}, now, hint)
        hooks.each(lambda hook: hook.begin(initial))
        hooks.each(lambda hook: hook.after(encoder.module))
        files = write_changed(encoder, folder, parent, {**record, "mitigate": hooks.facts()})
    name = f"train-{model.side}-seed-{model.seed}"
    study.folder.finish(name, files, time.monotonic() - started, {"made_from": str(parent)})


def embed_one(
    study: PlannedStudy,
    model: TrainingSet,
    *,
    part: passes.Part = passes.WHOLE,
    progress: Callable[[int], object] = lambda _: None,
) -> None:
    """Embed all pairs, or a part, with one model."""
    folder = study.folder.embedding_dir(model.side, model.seed)
    folder = folder if part == passes.WHOLE else folder / f"part-{part.index}"
    with reproducible(study.execution.threads, study.execution.device):
        passes.save(study.embed(model, part=part, progress=progress), folder)


def _every() -> float:
    text = os.environ.get(EVERY_VARIABLE, "")
    try:
        return float(text or EVERY)
    except ValueError:
        subject = f"environment variable {EVERY_VARIABLE}"
        raise InputError(subject, got=repr(text), expected="a number of seconds", hint="Unset it.") from None
