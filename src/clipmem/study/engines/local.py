"""The local engine: trainings in processes of their own (see `clipmem.study.engine`), embedding in this one."""

from collections.abc import Callable, Sequence
from pathlib import Path

from clipmem.base.errors import InputError
from clipmem.embed import passes
from clipmem.store.folder import RunFolder
from clipmem.study import engine, workers
from clipmem.study.embedding import Embedder
from clipmem.study.execution import Execution
from clipmem.train.numerics import threads


class LocalEngine:
    """This machine alone."""

    def fit(self, how: Execution) -> Execution:
        """Change nothing."""
        return how

    def train(
        self,
        folder: RunFolder,
        tasks: Sequence[workers.Task],
        how: Execution,
        *,
        progress: Callable[[int, str], object],
    ) -> engine.Spent:
        """Train the models of `tasks`, `how.workers` at a time."""
        check_processes(folder, tasks, how, 1)
        return engine.train_all(folder.path, tasks, how, progress=progress)

    def embed(
        self, folder: RunFolder, tasks: Sequence[workers.Task], how: Execution, *, progress: Callable[[int], object]
    ) -> list[Path]:
        """Embed with one model after another, on all cores."""
        embedder, files = Embedder(folder), list[Path]()
        for task in tasks:
            with threads(how.threads * how.workers):
                embedded = embedder.embed(task, progress=progress)
            files += passes.save(embedded, folder.embedding_dir(task.side, task.seed))
        return files


def check_processes(folder: RunFolder, tasks: Sequence[workers.Task], how: Execution, now: int) -> None:
    """Refuse to train the rest of a study on another number of processes a model than its first models.

    Raises:
        InputError: Their sums would round differently; f and g would no longer differ in their data only.
    """
    if tasks and how.processes != now:
        raise InputError(
            f"run folder {folder.path}",
            got=f"a study begun with {how.processes} processes a model, {now} now",
            expected="the same number: models of one study are computed alike",
            hint=f"Run it with torchrun --nproc-per-node {how.processes}."
            if how.processes > 1
            else "Run it without torchrun, or choose another --out DIR.",
        )
