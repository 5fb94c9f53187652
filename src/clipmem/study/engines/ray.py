"""The Ray engine: training of models and parts of embeddings as Ray tasks; the same bytes as locally.

`ray` starts Ray on this machine, or joins the cluster of RAY_ADDRESS. Every machine needs the same version of clipmem
and the run folder under the same path. Tasks whose processes die are retried. Several processes can train a model
together, each on a GPU of its own: Ray Train starts and joins them. If one of these dies, the run ends.
"""

import contextlib
import importlib.util
import os
import socket
import tempfile
import warnings
from collections.abc import Generator, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

from clipmem.base.errors import ClipmemError, ClipmemWarning, InputError, RunError, require
from clipmem.base.machine import cores
from clipmem.base.paths import make_folder
from clipmem.base.progress import Report
from clipmem.study import pool
from clipmem.study.child import BOARDS, Board
from clipmem.study.execution import Execution

RETRIES, _POLL = 3, 0.5


def _call(task: partial[None], board: str, directory: str, scaling: Mapping[str, object]) -> tuple[str, int]:
    """Run a task of `study.tasks`; return clipmem's error and its exit code as data, since Ray would wrap it."""
    run = partial(task, board=Path(board), directory=directory)
    try:
        _run_together(run, scaling) if scaling else run()
    except ClipmemError as error:
        return str(error), error.exit_code
    return "", 0


def _run_together(run: partial[None], scaling: Mapping[str, object]) -> None:
    """Call a function in each process of a group by Ray Train, which is torch's default group there."""
    from ray import train  # pyright: ignore[reportMissingImports]
    from ray.train.torch import TorchTrainer  # pyright: ignore[reportMissingImports]

    named = train.RunConfig("{side}-{seed}".format_map(run.keywords), str(run.keywords["board"]))
    try:
        TorchTrainer(run, scaling_config=train.ScalingConfig(**scaling), run_config=named).fit()
    except train.WorkerGroupError as failure:
        errors = [error for error in failure.worker_failures.values() if isinstance(error, ClipmemError)]
        raise (errors or [failure])[0] from None


@dataclass
class RayEngine(pool.LocalEngine):
    """A connection to Ray."""

    ray: Any
    largest: Mapping[str, int]  # see `largest_tasks`
    processes: int  # that train one model together
    here, together = False, 8

    def fit(self, resources: Execution) -> Execution:
        """Train each model with that many processes."""
        threads = max(1, resources.threads // self.processes)
        return replace(resources, threads=threads, processes=self.processes)

    def run(
        self, parts: pool.Parts, resources: Execution, folder: Path, *, progress: Report, fresh: bool = False
    ) -> None:
        """Run the task of each part, as many at a time as fit; all machines report progress into `folder`."""
        make_folder(folder)
        alone = not fresh or self.processes == 1
        each = {"CPU": min(resources.threads, self.largest[resources.device]), "GPU": int(resources.device == "cuda")}
        threads = str(each["CPU"] if each["GPU"] else resources.threads)  # on a CPU they change the bytes
        group = {"num_workers": self.processes, "use_gpu": each["GPU"] > 0, "resources_per_worker": each}
        size, room = 1 if alone else self.processes, self.ray.cluster_resources()
        short = [f"{size * count} {kind}" for kind, count in each.items() if size * count > room.get(kind, 0)]
        if short:  # a cluster may grow
            text = f"the Ray cluster has fewer than {' and '.join(short)}: clipmem waits until machines join it"
            warnings.warn(ClipmemWarning(text), stacklevel=2)
        options = {
            "num_cpus": each["CPU"] if alone else 0,
            "num_gpus": each["GPU"] if alone else 0,
            "max_retries": RETRIES if alone else 0,  # Ray Train would not free the cores of a group that lost a process
            "runtime_env": {"env_vars": {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}},
        }
        call = self.ray.remote(max_calls=1)(_call) if fresh else self.ray.remote(_call)
        with tempfile.TemporaryDirectory(dir=folder.resolve(), prefix=BOARDS) as board:
            where = {"board": board, "directory": str(Path.cwd()), "scaling": {} if alone else group}
            names = {f"{task.func.__name__.partition('_')[0]} {name}": task for name, task in parts.items()}
            running = {call.options(**options, name=name).remote(task, **where): name for name, task in names.items()}
            self._follow(running, Board(Path(board)), progress)

    def _follow(self, running: dict[Any, str], board: Board, progress: Report) -> None:
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
            told = f"{name}: the Ray task failed ({reason}). Run the same command again"
            raise RunError(f"{told}: what is finished is not repeated.") from failure
        if error:
            raise InputError(error) if exit_code == InputError.exit_code else RunError(error)


def largest_tasks(nodes: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """Return the cores of the largest task on a CPU, and of a task with one of a node's GPUs, which share its cores."""
    alive = [node["Resources"] for node in nodes if node["Alive"]]
    by_gpu = (int(node.get("CPU", 0) // node["GPU"]) for node in alive if node.get("GPU"))
    return {"cpu": max(int(node.get("CPU", 0)) for node in alive), "cuda": max(1, min(by_gpu, default=1))}


@contextlib.contextmanager
def connect(processes: int = 1) -> Generator[RayEngine]:
    """Connect to Ray."""
    available, hint = importlib.util.find_spec("ray") is not None, "Install it in the checkout: pip install '.[ray]'."
    require(available, "--engine ray", "no package ray", "the extra `ray`", hint)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray  # pyright: ignore[reportMissingImports]  an extra

    address = os.environ.get("RAY_ADDRESS")
    # without an address, Ray would join the last cluster started on this machine
    where: dict[str, object] = {} if address else {"num_cpus": cores(), "include_dashboard": False}
    require(address or processes <= cores(), f"--processes {processes}", f"{cores()} cores", "one each", "Use fewer.")
    try:
        host, _, port = (address or "").rpartition("/")[2].rpartition(":")
        if port.isdecimal():  # Ray tries for minutes
            socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
        with warnings.catch_warnings(action="ignore"):
            quiet = {"log_to_driver": False, "logging_level": "ERROR", "configure_logging": not address}
            ray.init(address or "local", **where, **quiet)
    except (OSError, ValueError, RuntimeError) as error:
        got = f"no Ray at {address or 'this machine'} ({str(error).strip().splitlines()[0][:200]})"
        raise InputError("--engine ray", got=got, expected="a running Ray", hint="Check RAY_ADDRESS.") from error
    try:
        yield RayEngine(ray, largest_tasks(ray.nodes()), processes)
    finally:
        ray.shutdown()
