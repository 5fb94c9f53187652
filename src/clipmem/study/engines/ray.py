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
from functools import partial
from pathlib import Path
from typing import Any, cast

from clipmem.base.errors import ClipmemError, InputError, RunError, require
from clipmem.base.machine import cores
from clipmem.base.paths import make_folder
from clipmem.models import passes
from clipmem.study import pool
from clipmem.study.child import BOARDS, Board
from clipmem.study.execution import Execution
from clipmem.study.plan import PlannedStudy
from clipmem.study.tasks import embed_task
from clipmem.train.paired import TrainingSet

RETRIES = 3
_PASSES = 8  # forward passes per task
_POLL = 0.5


def _call(task: partial[None], board: str, directory: str) -> tuple[str, int]:
    """Run a task of `study.tasks`; return clipmem's error and its exit code as data, since Ray would wrap it."""
    try:
        task(board=Path(board), directory=directory)
    except ClipmemError as error:
        return str(error), error.exit_code
    return "", 0


@dataclass
class RayEngine(pool.LocalEngine):
    """A connection to Ray."""

    ray: Any
    largest: int
    few = 0

    def embed(
        self, study: PlannedStudy, models: Sequence[TrainingSet], *, progress: Callable[[int], object]
    ) -> list[Path]:
        """Embed blocks of pairs with all models, and join the blocks of each model."""
        count = -(-study.splits.height // (_PASSES * study.recipe.embed.batch_size))
        parts = {
            f"{name}, part {index}": partial(task, part=passes.Part(index, count))
            for name, task in pool.model_parts(embed_task, study, models).items()
            for index in range(count)
        }
        folder = study.folder.path
        self.run(parts, study.execution, folder, progress=lambda done, _: progress(done))
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
        parts: pool.Parts,
        resources: Execution,
        folder: Path,
        *,
        progress: Callable[[int, str], object],
        fresh: bool = False,
    ) -> None:
        """Run the task of each part, as many at a time as fit; all machines report progress into `folder`."""
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
            names = {f"{task.func.__name__.partition('_')[0]} {name}": task for name, task in parts.items()}
            running = {call.options(**options, name=name).remote(task, **where): name for name, task in names.items()}
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
            error, exit_code = cast(tuple[str, int], self.ray.get(reference))
        except self.ray.exceptions.RayError as failure:
            reason = str(failure).strip().splitlines()[-1][:300]
            raise RunError(
                f"{name}: the Ray task failed ({reason}) after {RETRIES} retries. "
                "Run the same command again: what is finished is not repeated."
            ) from failure
        if error:
            raise InputError(error) if exit_code == InputError.exit_code else RunError(error)


@contextlib.contextmanager
def connect(name: str) -> Generator[RayEngine]:
    """Connect to Ray."""
    available, hint = importlib.util.find_spec("ray") is not None, "Install it in the checkout: pip install '.[ray]'."
    require(available, "--engine ray", "no package ray", "the extra `ray`", hint)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray  # pyright: ignore[reportMissingImports]  an extra

    local = name == "ray" and not os.environ.get("RAY_ADDRESS")
    # without an address, Ray would join the last cluster started on this machine; None is Ray's own default
    address = "local" if local else None if name == "ray" else name
    size, dashboard = (cores(), False) if local else (None, None)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            quiet = {"log_to_driver": False, "logging_level": "ERROR", "configure_logging": local}
            ray.init(address, num_cpus=size, include_dashboard=dashboard, **quiet)
    except (ConnectionError, TimeoutError, ValueError, RuntimeError) as error:
        got = f"no Ray at that address ({str(error).strip().splitlines()[0][:200]})"
        hint = "Check the address, or use --engine ray to start Ray on this machine."
        raise InputError(f"--engine {name}", got=got, expected="the address of a running Ray", hint=hint) from error
    try:
        sizes = [int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]]
        yield RayEngine(ray, max(sizes))
    finally:
        ray.shutdown()
