"""The local engine: a pool of processes that train models and embed parts of the pairs.

loky starts new interpreters, since torch's thread pools do not survive a fork and scripts that call `clipmem.run` may
lack a `__main__` guard. Tasks are functions of `study.tasks` and report progress through files, which also work on a
cluster.
"""

import contextlib
import os
import re
import tempfile
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from functools import partial
from pathlib import Path

import torch
from loky import ProcessPoolExecutor
from loky.process_executor import BrokenProcessPool

from clipmem.base.errors import RunError, require
from clipmem.base.machine import cores
from clipmem.base.progress import Advance, Report
from clipmem.models import passes
from clipmem.models.embeddings import Runner, Tasks, in_turn
from clipmem.study import child, tasks
from clipmem.study.child import Board
from clipmem.study.execution import Execution, batches_ahead
from clipmem.study.plan import PlannedStudy
from clipmem.train.checkpoint import TrainingStopped
from clipmem.train.paired import TrainingSet

_POLL = 0.1
_MOST, _FEW = 4, 2  # processes that embed, each of which holds the model; parts that are not worth starting one for
_IDLE = 300  # seconds without a task after which a process ends
# with psutil installed, loky restarts processes that grow by 300 MB, as training does
_NO_RESTARTS = {"LOKY_MAX_MEMORY_LEAK_SIZE": "1e18"}
_reusing = 0
_reusable: dict[tuple[int, str], ProcessPoolExecutor] = {}
Parts = Mapping[str, partial[None]]  # a task of `study.tasks` for each part of the work, by the part's name


@contextlib.contextmanager
def reused() -> Generator[None]:
    """Reuse processes within this block, and end them after it."""
    global _reusing  # noqa: PLW0603
    _reusing += 1
    try:
        yield
    finally:
        _reusing -= 1
        if not _reusing:
            _end()


@contextlib.contextmanager
def _executor(workers: int, threads: str) -> Generator[ProcessPoolExecutor]:
    """Open an executor, reusing one if possible; end its processes after a failure, or unless they are reused."""
    key = (workers, threads)
    executor = _reusable.pop(key, None)
    if executor is not None and not _works(executor):
        _shut(executor)
        executor = None
    env, parent = {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads, **_NO_RESTARTS}, (os.getpid(),)
    if executor is None:
        executor = ProcessPoolExecutor(workers, timeout=_IDLE, env=env, initializer=child.begin, initargs=parent)
    try:
        yield executor
    except BaseException:
        _shut(executor)
        raise
    _reusable[key] = executor
    if not _reusing:
        _end()


def _works(executor: ProcessPoolExecutor) -> bool:
    """Return whether an idle executor has lost no process."""
    try:
        executor.submit(os.getpid).result()
    except BrokenProcessPool:
        return False
    return True


def _end() -> None:
    while _reusable:
        _shut(_reusable.popitem()[1])


def _shut(executor: ProcessPoolExecutor) -> None:
    """End the processes of an executor; running tasks end after their step, with a checkpoint."""
    try:
        executor.shutdown(wait=True)
    except KeyboardInterrupt:  # a second Ctrl-C
        executor.shutdown(wait=True, kill_workers=True)
        raise


def _died(error: BrokenProcessPool, names: Iterable[str], board: Board, stderr: Path) -> RunError:
    running = " or ".join(name for name in names if child.running_file(board.path, name).is_file()) or "(none)"
    written = stderr.read_text(errors="replace").strip().splitlines() if stderr.is_file() else []
    tail = f": {' | '.join(written[-3:])[-600:]}" if written else ""
    code = re.search(r"exit codes of the workers are \{(.*?)\}", str(error))
    return RunError(
        f"the process of {running} died ({code[1] if code else 'no exit code'}){tail}. "
        "Run the same command again: what is finished is not repeated."
    )


class LocalEngine:
    """The engine for one machine, and base class of the others."""

    here = True  # few parts are done in this process
    processes = 1  # that train one model together
    together = 0  # forward passes per part of the pairs; 0 = all of a model

    def fit(self, resources: Execution) -> Execution:
        """Adapt the resources to the engine; by default unchanged."""
        return resources

    def run(
        self,
        parts: Parts,
        resources: Execution,
        folder: Path,  # noqa: ARG002  for engines on several machines, which share it
        *,
        progress: Report,
        fresh: bool = False,  # noqa: ARG002  whether each part needs a new process there
    ) -> None:
        """Run the task of each part, `resources.workers` at a time.

        Raises:
            RunError: A task failed, or its process died. The others are ended.
        """
        if not parts:
            return
        with tempfile.TemporaryDirectory() as scratch:
            board, stderr, futures = Board(Path(scratch)), Path(scratch) / "stderr.txt", list[Future[None]]()
            # reused processes may have another working directory, and recipes may have relative paths
            where = {"directory": str(Path.cwd()), "board": scratch}
            try:
                with _executor(min(resources.workers, len(parts)), str(resources.threads)) as executor:
                    try:
                        for name, task in parts.items():
                            futures.append(executor.submit(child.call, task, name, str(stderr), **where))
                        waiting = set(futures)
                        while waiting:
                            done, waiting = wait(waiting, timeout=_POLL, return_when=FIRST_COMPLETED)
                            board.report(progress)
                            for future in done:
                                future.result()
                    except BaseException:
                        (board.path / child.STOP).touch()
                        for future in futures:
                            future.cancel()
                        raise
            except TrainingStopped as error:
                raise RunError("a process was stopped; run the same command again to resume it") from error
            except BrokenProcessPool as error:
                raise _died(error, parts, board, stderr) from error

    def train(self, study: PlannedStudy, models: Sequence[TrainingSet], *, progress: Report) -> None:
        """Train the models, as many at a time as there are workers."""
        check_processes(study, models, self.processes)
        resources = study.execution
        ahead = batches_ahead(resources, min(resources.workers, len(models)))
        parts = model_parts(tasks.train_task, study, models, ahead=ahead)
        # another engine needs a process per model, as training changes settings of the process
        self.run(parts, resources, study.folder.path, progress=progress, fresh=True)

    def embed(self, study: PlannedStudy, models: Sequence[TrainingSet], *, progress: Advance) -> list[Path]:
        """Embed with the models in the pool, whose process holds the memory of a GPU; here with one worker on a CPU."""
        size = self.together * study.recipe.embed.batch_size or study.splits.height
        count = -(-study.splits.height // size)
        if count == study.execution.workers == 1 and study.execution.device == "cpu":
            for model in models:
                tasks.embed_one(study, model, progress=progress)
        else:
            parts = {
                f"{name}, part {k}" if count > 1 else name: partial(task, part=passes.Part(k, count))
                for name, task in model_parts(tasks.embed_task, study, models).items()
                for k in range(count)
            }
            self.run(parts, study.execution, study.folder.path, progress=lambda pairs, _: progress(pairs))
        folders = [study.folder.embedding_dir(model.side, model.seed) for model in models]
        return [file for folder in folders for file in passes.join_in(folder, count)]

    def runner(self, share: tuple[int, int], device: str, folder: Path, processes: int = _MOST) -> Runner:
        """Return a runner of parts: for share (k, n), of those whose number is k - 1 modulo n.

        On a CPU few parts are done one after another by all cores, more by up to four `processes` on a machine. That
        depends on all parts, so that a stopped call and a share compute with as many threads as the whole, to the bit.
        """
        first, count = share

        def run_parts(function: Callable[..., object], parts: Tasks, progress: Advance) -> str:
            mine = {k: arguments for k, arguments in parts.items() if arguments and k % count == first - 1}
            workers = min(cores(), processes) if device == "cpu" else 1
            workers = workers if len(parts) >= _FEW * workers else 1
            if not mine or (self.here and workers == 1):
                in_turn(function, mine, progress)
            else:
                named = {
                    f"part {k}": partial(tasks.part_task, number=k, function=function, arguments=arguments)
                    for k, arguments in mine.items()
                }
                threads = torch.get_num_threads() if workers == 1 else max(1, cores() // workers)
                resources = Execution(device, "", threads, workers)
                self.run(named, resources, folder, progress=lambda done, _: progress(done))
            return f"{first}/{count}" if count > 1 else ""

        return run_parts


def model_parts(task: Callable[..., None], study: PlannedStudy, models: Sequence[TrainingSet], **options: int) -> Parts:
    """Return a task of `study.tasks` for each model of a study."""
    of_study = partial(task, folder=str(study.folder.path.resolve()), **options)
    return {
        f"model {model.side}, seed {model.seed}": partial(of_study, side=model.side, seed=model.seed)
        for model in models
    }


def check_processes(study: PlannedStudy, models: Sequence[TrainingSet], now: int) -> None:
    """Refuse to resume a study with another number of processes per model."""
    before = study.execution.processes
    together = f"Run it with torchrun --nproc-per-node {before}, or with --engine ray --processes {before}."
    subject, got = f"run folder {study.folder.path}", f"{now} processes per model, in a study started with {before}"
    hint = together if before > 1 else "Run it without torchrun or --processes, or choose another --out DIR."
    require(not models or before == now, subject, got, "the same number for all models", hint)
    device, got = study.manifest["device"], "a study that started on a GPU, and none here"
    same = not models or device == study.execution.device
    require(same, subject, got, "the same device for all models", "Resume it on that machine.")
