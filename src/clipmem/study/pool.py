"""The local engine: processes that train models and embed pairs, kept for the next study where one follows.

loky starts them as new interpreters: thread pools of torch do not survive a fork, and a script that calls
`clipmem.run` without a `__main__` guard must not start itself again. Tasks are functions of `study.work`; progress goes
through small files, which work alike for processes of this machine and for those of a cluster.
"""

import contextlib
import os
import re
import tempfile
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loky import ProcessPoolExecutor
from loky.process_executor import BrokenProcessPool

from clipmem.base.errors import RunError
from clipmem.base.require import require
from clipmem.embed import passes
from clipmem.study import child, work
from clipmem.study.child import Board
from clipmem.study.execution import Execution, batches_ahead
from clipmem.study.plan import PlannedStudy
from clipmem.train.checkpoint import TrainingStopped
from clipmem.train.paired import TrainingSet

_POLL = 0.1
_IDLE = 300  # seconds without a task after which a kept process ends
Key = tuple[int, str]
_keeping = 0
_kept: dict[Key, ProcessPoolExecutor] = {}
Task = Callable[..., dict[str, Any]]


@dataclass
class TimeBreakdown:
    """Where the time of all training processes went, in seconds."""

    compute: float = 0.0
    data: float = 0.0
    total: float = 0.0

    def add(self, spent: Mapping[str, float]) -> None:
        """Add what one training spent (see `work.train_one`)."""
        self.compute += spent["compute_seconds"]
        self.data += spent["data_seconds"]

    def sentence(self) -> str:
        """Say what the training was bound by."""
        other = max(0.0, self.total - self.compute - self.data)
        shares = {"compute": self.compute, "data loading": self.data, "startup and files": other}
        whole = max(sum(shares.values()), 1e-9)
        return ", ".join(
            f"{100 * shares[name] / whole:.0f}% {name}" for name in sorted(shares, key=lambda name: -shares[name])
        )


@contextlib.contextmanager
def kept() -> Generator[None]:
    """Keep the processes of the studies in this block from one study to the next, and end them after it."""
    global _keeping  # noqa: PLW0603
    _keeping += 1
    try:
        yield
    finally:
        _keeping -= 1
        if not _keeping:
            _end()


@contextlib.contextmanager
def _executor(workers: int, threads: str) -> Generator[ProcessPoolExecutor]:
    """Give an executor, a kept one if there is one, and end its processes after a failure or if none are kept."""
    key = (workers, threads)
    executor = _kept.pop(key, None) or ProcessPoolExecutor(
        workers,
        timeout=_IDLE,
        env={"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads},
        initializer=child.begin,
        initargs=(os.getpid(),),
    )
    try:
        yield executor
    except BaseException:
        _shut(executor)
        raise
    _kept[key] = executor
    if not _keeping:
        _end()


def _end() -> None:
    while _kept:
        _shut(_kept.popitem()[1])


def _shut(executor: ProcessPoolExecutor) -> None:
    """End the processes of an executor: those at work end after their step, with a checkpoint."""
    try:
        executor.shutdown(wait=True)
    except KeyboardInterrupt:  # a second Ctrl-C: the last checkpoint must do
        executor.shutdown(wait=True, kill_workers=True)
        raise


def run(
    task: Task,
    folder: Path,
    models: Sequence[TrainingSet],
    how: Execution,
    *,
    progress: Callable[[int, str], object],
    **options: Any,
) -> tuple[list[dict[str, Any]], float]:
    """Run a task for each model, `how.workers` at a time.

    Args:
        task: A function of `study.work`.
        folder: The run folder.
        models: The models.
        how: How they are computed.
        progress: Called with what was done since the last call, and a note.
        options: More arguments of the task.

    Returns:
        What the tasks returned, and their durations summed.

    Raises:
        InputError: A task found its input wrong.
        RunError: A task failed, or its process died. The others are ended.
    """
    if not models:
        return [], 0.0
    with tempfile.TemporaryDirectory() as scratch:
        board, stderr = Board(Path(scratch)), Path(scratch) / "stderr.txt"
        # a kept process may have been started elsewhere, and a recipe may hold relative paths
        place = {"directory": str(Path.cwd()), "folder": str(folder), "board": scratch}
        workers, began = min(how.workers, len(models)), time.monotonic()
        futures: list[Future[dict[str, Any]]] = []
        try:
            with _executor(workers, str(how.threads)) as executor:
                try:
                    for one in models:
                        more = {"side": one.side, "seed": one.seed, **place, **options}
                        futures.append(executor.submit(child.call, task, str(stderr), **more))
                    _follow(futures, board, progress)
                except BaseException:
                    (board.path / child.STOP).touch()
                    for future in futures:
                        future.cancel()
                    raise
        except TrainingStopped as error:
            raise RunError("a training was asked to stop; the same command resumes it") from error
        except BrokenProcessPool as error:
            raise _died(error, models, board, stderr) from error
        return [future.result() for future in futures], (time.monotonic() - began) * workers


def _follow(futures: Sequence[Future[Any]], board: Board, progress: Callable[[int, str], object]) -> None:
    """Tell of the progress until all tasks are done, or raise the first error."""
    waiting = set(futures)
    while waiting:
        done, waiting = wait(waiting, timeout=_POLL, return_when=FIRST_COMPLETED)
        board.tell(progress)
        for future in done:
            future.result()


def _died(error: BrokenProcessPool, models: Sequence[TrainingSet], board: Board, stderr: Path) -> RunError:
    """Name the tasks that had begun and were not finished, and what their processes wrote last."""
    begun = [f"{one.side}, seed {one.seed}" for one in models if child.begun(board.path, one.side, one.seed).is_file()]
    written = stderr.read_text(errors="replace").strip().splitlines() if stderr.is_file() else []
    tail = f": {' | '.join(written[-3:])[-600:]}" if written else ""
    code = re.search(r"exit codes of the workers are \{(.*?)\}", str(error))
    return RunError(
        f"the process of model {' or '.join(begun) or '(none)'} died ({code[1] if code else 'no exit code'}){tail}. "
        "Run the same command again: finished models are not trained again."
    )


class LocalEngine:
    """This machine alone; what every engine does where it says nothing else: train and embed the missing models."""

    def fit(self, how: Execution) -> Execution:
        """Change nothing."""
        return how

    def train(
        self, study: PlannedStudy, models: Sequence[TrainingSet], *, progress: Callable[[int, str], object]
    ) -> TimeBreakdown:
        """Train the models, `how.workers` at a time."""
        check_processes(study, models, 1)
        spent, how = TimeBreakdown(), study.how
        ahead = batches_ahead(how, min(how.workers, len(models)))
        answers, spent.total = run(work.train_task, study.folder.path, models, how, progress=progress, ahead=ahead)
        for answer in answers:
            spent.add(answer)
        return spent

    def embed(
        self, study: PlannedStudy, models: Sequence[TrainingSet], *, progress: Callable[[int], object]
    ) -> list[Path]:
        """Embed with the models, `how.workers` at a time; in this process where there is one worker."""
        if study.how.workers == 1:
            for model in models:
                work.embed_one(study, model.side, model.seed, progress=progress)
        else:
            run(work.embed_task, study.folder.path, models, study.how, progress=lambda count, _: progress(count))
        return [
            file for model in models for file in passes.files_of(study.folder.embedding_dir(model.side, model.seed))
        ]


def check_processes(study: PlannedStudy, models: Sequence[TrainingSet], now: int) -> None:
    """Refuse to train the rest of a study on another number of processes a model than its first models."""
    begun = study.how.processes
    torchrun = f"Run it with torchrun --nproc-per-node {begun}."
    what, got = f"run folder {study.folder.path}", f"a study begun with {begun} processes a model, {now} now"
    hint = torchrun if begun > 1 else "Run it without torchrun, or choose another --out DIR."
    require(not models or begun == now, what, got, "the same number: models of one study are computed alike", hint)
