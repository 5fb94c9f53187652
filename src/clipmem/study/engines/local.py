"""The local engine: trainings and embeddings in processes of their own (see `clipmem.study.pool`)."""

from collections.abc import Callable, Sequence
from pathlib import Path

from clipmem.base.require import require
from clipmem.embed import passes
from clipmem.study import pool, work
from clipmem.study.execution import Execution, batches_ahead
from clipmem.study.plan import PlannedStudy
from clipmem.train.paired import TrainingSet


class LocalEngine:
    """This machine alone."""

    def fit(self, how: Execution) -> Execution:
        """Change nothing."""
        return how

    def train(
        self, study: PlannedStudy, models: Sequence[TrainingSet], *, progress: Callable[[int, str], object]
    ) -> pool.TimeBreakdown:
        """Train the models, `how.workers` at a time."""
        check_processes(study, models, 1)
        spent, how = pool.TimeBreakdown(), study.how
        ahead = batches_ahead(how, min(how.workers, len(models)))
        answers, spent.total = pool.run(work.train_task, study.folder.path, models, how, progress=progress, ahead=ahead)
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
            pool.run(work.embed_task, study.folder.path, models, study.how, progress=lambda count, _: progress(count))
        return [
            file for model in models for file in passes.files_of(study.folder.embedding_dir(model.side, model.seed))
        ]


def check_processes(study: PlannedStudy, models: Sequence[TrainingSet], now: int) -> None:
    """Refuse to train the rest of a study on another number of processes a model than its first models."""
    begun = study.how.processes
    torchrun = f"Run it with torchrun --nproc-per-node {begun}."
    require(
        not models or begun == now,
        f"run folder {study.folder.path}",
        f"a study begun with {begun} processes a model, {now} now",
        "the same number: models of one study are computed alike",
        torchrun if begun > 1 else "Run it without torchrun, or choose another --out DIR.",
    )
