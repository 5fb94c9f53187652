"""The Ray engine: a study's models, and blocks of the embedding of each, as Ray tasks; the same bytes as locally.

`ray` starts a Ray on this machine, or joins the cluster that RAY_ADDRESS names; `ray://HEAD:PORT` is a client of one.
Every machine needs clipmem in the same version and sees the run folder under the same path: tasks read what they need
there, and only the names of models and embeddings travel. A task whose process dies is started again.
"""

import contextlib
import importlib.util
import os
import time
import warnings
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from clipmem.base.errors import ClipmemError, InputError, RunError
from clipmem.embed import passes
from clipmem.store import manifest
from clipmem.store.folder import RunFolder
from clipmem.study import engine, execution, workers
from clipmem.study.embedding import Embedder
from clipmem.study.engines.local import check_processes

RETRIES = 3
_PASSES = 8  # forward passes of a task: long against reading a model, short against a day
_POLL = 0.5


# ---- what runs in a task


def _train(path: str, side: str, seed: int, board: Any) -> dict[str, Any]:
    """Train one model; a known error comes back as data, since Ray would wrap it."""
    from clipmem.study.worker import train_one

    def say(**message: Any) -> None:
        if "step" in message:
            board.put.remote((side, seed), message["step"], engine.note(message))

    began = time.monotonic()
    try:
        spent = train_one(RunFolder(path), side, seed, say=say)
    except ClipmemError as error:
        return {"error": str(error), "exit_code": error.exit_code}
    return {"spent": spent, "total": time.monotonic() - began}


def _embed(path: str, side: str, seed: int, part: passes.Part, board: Any) -> dict[str, Any]:
    """Embed one block of pairs with one model."""
    folder = RunFolder(path)
    how = execution.from_manifest(manifest.read(folder))
    # as the local engine does it: the number of threads is part of the result
    torch.set_num_threads(how.threads * how.workers)
    done = 0

    def progress(count: int) -> None:
        nonlocal done
        done += count
        board.put.remote((side, seed, part), done, "")

    try:
        embedded = Embedder(folder).embed(workers.Task(side, seed), part=part, progress=progress)
    except ClipmemError as error:
        return {"error": str(error), "exit_code": error.exit_code}
    return {"arrays": [None if array is None else array.numpy() for array in embedded]}


def _own(array: np.ndarray | None) -> Any:
    """Copy what comes out of Ray's memory: it is read-only there."""
    return None if array is None else torch.from_numpy(np.array(array))


class _Board:
    """Where tasks write how far they are. A task that is started again goes back to where it starts."""

    def __init__(self) -> None:
        self._done: dict[Any, tuple[int, str]] = {}

    def put(self, task: Any, done: int, note: str) -> None:
        """Write how far a task is."""
        self._done.pop(task, None)  # the last one to write stands last
        self._done[task] = (done, note)

    def read(self) -> dict[Any, tuple[int, str]]:
        """Return how far each task is."""
        return self._done

    def clear(self) -> None:
        """Forget everything: the next stage counts from 0."""
        self._done.clear()


# ---- what runs here


@dataclass
class RayEngine:
    """A connected Ray.

    Attributes:
        ray: The module.
        board: The progress actor.
        largest: Cores of the largest machine: no task can ask for more.
    """

    ray: Any
    board: Any
    largest: int

    def fit(self, how: execution.Execution) -> execution.Execution:
        """Change nothing: the manifest is that of the local engine."""
        return how

    def train(
        self,
        folder: RunFolder,
        tasks: Sequence[workers.Task],
        how: execution.Execution,
        *,
        progress: Callable[[int, str], object],
    ) -> engine.Spent:
        """Train the models of `tasks`, as many at a time as the cluster has room for."""
        check_processes(folder, tasks, how, 1)
        threads, spent = str(how.threads), engine.Spent()
        # a process of its own for each model: training sets how a whole process computes
        remote = self.ray.remote(max_calls=1)(_train)
        options = {
            **self._needs(how, how.threads),
            "runtime_env": {"env_vars": {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}},
        }
        running = {
            remote.options(**options, name=f"train {task.side} seed {task.seed}").remote(
                str(folder.path.resolve()), task.side, task.seed, self.board
            ): f"training {task.side}, seed {task.seed}"
            for task in tasks
        }
        with contextlib.closing(self._finished(running, progress)) as finished:
            for _, answer in finished:
                spent.add(answer["spent"])
                spent.total += answer["total"]
        return spent

    def embed(
        self,
        folder: RunFolder,
        tasks: Sequence[workers.Task],
        how: execution.Execution,
        *,
        progress: Callable[[int], object],
    ) -> list[Path]:
        """Embed blocks of pairs of all models, as many at a time as there is room for; write each model's here."""
        recipe = folder.recipe()
        count = -(-folder.read("splits").height // (_PASSES * recipe.embed.batch_size))
        parts = [passes.Part(index, count) for index in range(count)]
        remote = self.ray.remote(_embed)
        options = {
            **self._needs(how, how.threads * how.workers),
            # Ray gives processes of another environment: not those that have trained, which flush denormals
            "runtime_env": {"env_vars": {"OMP_NUM_THREADS": str(how.threads * how.workers), "CLIPMEM_TASK": "embed"}},
        }
        running, place = dict[Any, str](), dict[Any, tuple[workers.Task, int]]()
        for task in tasks:
            for part in parts:
                reference = remote.options(**options, name=f"embed {task.side} seed {task.seed}").remote(
                    str(folder.path.resolve()), task.side, task.seed, part, self.board
                )
                running[reference] = f"embedding with {task.side}, seed {task.seed}"
                place[reference] = (task, part.index)
        found: dict[workers.Task, dict[int, passes.Embeddings]] = {task: {} for task in tasks}
        files: dict[workers.Task, list[Path]] = {}
        # closed at once when a write fails: afterwards Ray is gone, and asking it for anything starts another
        with contextlib.closing(self._finished(running, lambda count, _: progress(count))) as finished:
            for reference, answer in finished:
                task, k = place[reference]
                found[task][k] = passes.Embeddings(*(_own(array) for array in answer["arrays"]))
                if len(found[task]) == len(parts):
                    whole = passes.join([one for _, one in sorted(found.pop(task).items())])
                    files[task] = passes.save(whole, folder.embedding_dir(task.side, task.seed))
        return [file for task in tasks for file in files[task]]

    def _needs(self, how: execution.Execution, threads: int) -> dict[str, Any]:
        return {
            "num_cpus": min(threads, self.largest),
            "num_gpus": int(how.device == "cuda"),
            "max_retries": RETRIES,
        }

    def _finished(
        self, running: dict[Any, str], progress: Callable[[int, str], object]
    ) -> Generator[tuple[Any, dict[str, Any]]]:
        """Yield each task and its answer as it ends; tell of the progress meanwhile.

        Raises:
            InputError: A task found its input wrong.
            RunError: A task failed, or its process died more often than it is started again. The others are ended.
        """
        waiting, told = list(running), 0
        try:
            while waiting:
                ready, waiting = self.ray.wait(waiting, timeout=_POLL)
                told = self._tell(told, progress)
                for reference in ready:
                    yield reference, self._answer(reference, running[reference])
            self._tell(told, progress)
        finally:
            for reference in waiting:
                self.ray.cancel(reference, force=True)
            self.ray.get(self.board.clear.remote())

    def _tell(self, told: int, progress: Callable[[int, str], object]) -> int:
        board: dict[Any, tuple[int, str]] = self.ray.get(self.board.read.remote())
        done = sum(count for count, _ in board.values())
        if done > told:
            progress(done - told, next(reversed(board.values()))[1])
        # a task that was started again has less done than before: it is told of when it has passed that
        return max(done, told)

    def _answer(self, reference: Any, name: str) -> dict[str, Any]:
        try:
            answer: dict[str, Any] = self.ray.get(reference)
        except self.ray.exceptions.RayError as error:
            reason = str(error).strip().splitlines()[-1][:300]
            raise RunError(
                f"{name}: the Ray task failed ({reason}); a process that dies is started again {RETRIES} times. "
                "Run the same command again: finished models are not trained again."
            ) from error
        if answer.get("exit_code") == InputError.exit_code:
            raise InputError(answer["error"])
        if "error" in answer:
            raise RunError(answer["error"])
        return answer


@contextlib.contextmanager
def connect(name: str) -> Generator[RayEngine]:
    """Connect to Ray for the length of the block.

    Args:
        name: `ray` or `ray://HEAD:PORT`.

    Raises:
        InputError: Ray is not installed, or nobody answers at that address.
    """
    ray = _import_ray()
    local = name == "ray" and not os.environ.get("RAY_ADDRESS")
    where: dict[str, Any] = (
        # without an address Ray would join whatever cluster was last started on this machine
        {"address": "local", "num_cpus": execution.cores(), "include_dashboard": False}
        if local
        else {}
        if name == "ray"
        else {"address": name}
    )
    try:
        with warnings.catch_warnings():
            # that nobody answers is said below, in one line
            warnings.simplefilter("ignore")
            ray.init(log_to_driver=False, logging_level="ERROR", configure_logging=local, **where)
    except (ConnectionError, TimeoutError, ValueError, RuntimeError) as error:
        raise InputError(
            f"--engine {name}",
            got=f"no Ray there ({str(error).strip().splitlines()[0][:200]})",
            expected="the address of a running Ray",
            hint="Check it, or use --engine ray to start one on this machine.",
        ) from error
    try:
        sizes = [int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]]
        yield RayEngine(ray, ray.remote(num_cpus=0)(_Board).remote(), max(sizes))
    finally:
        ray.shutdown()


def _import_ray() -> Any:
    if importlib.util.find_spec("ray") is None:
        raise InputError(
            "--engine ray",
            got="Ray is not installed",
            expected="the extra `ray`",
            hint="Install it: pip install 'clipmem[ray]'.",
        )
    # a library reports nothing about its users
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray  # pyright: ignore[reportMissingImports]  an extra

    return ray
