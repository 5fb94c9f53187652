"""The Ray engine: training of models and parts of embeddings as Ray tasks; the same bytes as locally.

`ray` starts Ray on this machine, or joins the cluster of RAY_ADDRESS; `ray://HEAD:PORT` is a client of a cluster. Every
machine needs the same version of clipmem and the run folder under the same path. Tasks whose processes die are retried.
"""

import contextlib
import importlib.util
import os
import shutil
import tempfile
import warnings
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clipmem.base.errors import ClipmemError, InputError, RunError, require
from clipmem.base.machine import cores
from clipmem.base.paths import make_folder
from clipmem.models import passes
from clipmem.study import pool
from clipmem.study.child import BOARDS, Board
from clipmem.study.execution import Execution
from clipmem.study.plan import PlannedStudy
from clipmem.study.pool import check_processes
from clipmem.study.tasks import embed_task, train_task
from clipmem.train.paired import TrainingSet

RETRIES = 3
_PASSES = 8  # forward passes per task
_POLL = 0.5


def _call(task: pool.Task, board: str, **options: Any) -> dict[str, Any]:
    """Run a task of `study.tasks`; return clipmem's errors as data, since Ray would wrap them."""
    try:
        task(board=Path(board), **options)
    except ClipmemError as error:
        return {"error": str(error), "exit_code": error.exit_code}
    return {}


@dataclass
class RayEngine(pool.LocalEngine):
    """A connection to Ray."""

    ray: Any
    largest: int
    few = 0

    def train(
        self, study: PlannedStudy, models: Sequence[TrainingSet], *, progress: Callable[[int, str], object]
    ) -> None:
        """Train the models, as many at a time as fit on the cluster."""
        check_processes(study, models, 1)
        parts, folder = pool.model_parts(study, models), study.folder.path
        # one process per model, as training changes settings of the process
        self.run(train_task, parts, study.execution, folder, progress=progress, fresh=True)

    def embed(
        self, study: PlannedStudy, models: Sequence[TrainingSet], *, progress: Callable[[int], object]
    ) -> list[Path]:
        """Embed blocks of pairs with all models, and join the blocks of each model."""
        count = -(-study.splits.height // (_PASSES * study.recipe.embed.batch_size))
        parts = {
            f"{name}, part {index}": {**options, "part": passes.Part(index, count)}
            for name, options in pool.model_parts(study, models).items()
            for index in range(count)
        }
        folder = study.folder.path
        self.run(embed_task, parts, study.execution, folder, progress=lambda done, _: progress(done))
        files: list[Path] = []
        for model in models:
            folder = study.folder.embedding_dir(model.side, model.seed)
            blocks = [folder / f"part-{index}" for index in range(count)] if count > 1 else []
            if blocks:
                passes.save(passes.join([passes.load(block) for block in blocks]), folder)
            for block in blocks:
                shutil.rmtree(block)
            files += passes.files_of(folder)
        return files

    def run(
        self,
        task: pool.Task,
        parts: pool.Parts,
        resources: Execution,
        folder: Path,
        *,
        progress: Callable[[int, str], object],
        fresh: bool = False,
    ) -> None:
        """Run a task for each part; all machines report progress into `folder`."""
        threads = str(resources.threads)
        make_folder(folder)
        options = {
            "num_cpus": min(resources.threads, self.largest),
            "num_gpus": int(resources.device == "cuda"),
            "max_retries": RETRIES,
            "runtime_env": {"env_vars": {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}},
        }
        call = self.ray.remote(max_calls=1)(_call) if fresh else self.ray.remote(_call)
        with tempfile.TemporaryDirectory(dir=folder.resolve(), prefix=BOARDS) as board:
            where = {"board": board, "directory": str(Path.cwd())}
            word = task.__name__.partition("_")[0]
            running = {
                call.options(**options, name=f"{word} {name}").remote(task, **where, **arguments): f"{word} {name}"
                for name, arguments in parts.items()
            }
            self._follow(running, Board(Path(board)), progress)

    def _follow(self, running: dict[Any, str], board: Board, progress: Callable[[int, str], object]) -> None:
        waiting = list(running)
        try:
            while waiting:
                ready, waiting = self.ray.wait(waiting, timeout=_POLL)
                board.report(progress)
                for reference in ready:
                    self._check(reference, running[reference])
        finally:
            for reference in waiting:
                self.ray.cancel(reference, force=True)
        board.report(progress)

    def _check(self, reference: Any, name: str) -> None:
        try:
            answer: dict[str, Any] = self.ray.get(reference)
        except self.ray.exceptions.RayError as error:
            reason = str(error).strip().splitlines()[-1][:300]
            raise RunError(
                f"{name}: the Ray task failed ({reason}) after {RETRIES} retries. "
                "Run the same command again: what is finished is not repeated."
            ) from error
        if answer.get("exit_code") == InputError.exit_code:
            raise InputError(answer["error"])
        if "error" in answer:
            raise RunError(answer["error"])


@contextlib.contextmanager
def connect(name: str) -> Generator[RayEngine]:
    """Connect to Ray."""
    available, hint = importlib.util.find_spec("ray") is not None, "Install it in the checkout: pip install '.[ray]'."
    require(available, "--engine ray", "no package ray", "the extra `ray`", hint)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray  # pyright: ignore[reportMissingImports]  an extra

    local = name == "ray" and not os.environ.get("RAY_ADDRESS")
    where: dict[str, Any] = (
        # without an address, Ray would join the last cluster started on this machine
        {"address": "local", "num_cpus": cores(), "include_dashboard": False}
        if local
        else {}
        if name == "ray"
        else {"address": name}
    )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ray.init(log_to_driver=False, logging_level="ERROR", configure_logging=local, **where)
    except (ConnectionError, TimeoutError, ValueError, RuntimeError) as error:
        got = f"no Ray at that address ({str(error).strip().splitlines()[0][:200]})"
        hint = "Check the address, or use --engine ray to start Ray on this machine."
        raise InputError(f"--engine {name}", got=got, expected="the address of a running Ray", hint=hint) from error
    try:
        sizes = [int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]]
        yield RayEngine(ray, max(sizes))
    finally:
        ray.shutdown()
