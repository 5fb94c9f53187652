"""The engine of `torchrun -m clipmem run`: the first process runs the study, all processes train one model together."""

import contextlib
import json
import os
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field, replace

import torch.distributed as dist

from clipmem.base.errors import ClipmemError, RunError
from clipmem.base.machine import cores
from clipmem.base.progress import Report
from clipmem.study import execution
from clipmem.study.plan import PlannedStudy
from clipmem.study.pool import LocalEngine, check_processes
from clipmem.study.tasks import train_one
from clipmem.train.distributed import World, connected
from clipmem.train.paired import TrainingSet

_POLL, _GRACE = 0.1, 5.0
_FAILED = "failed"  # set by the first process when it ends with an error


@dataclass
class TorchrunEngine(LocalEngine):
    """Engine of the first process: trains one model at a time on all processes; embeds alone.

    Attributes:
        world: The rank of this process, and the number of processes.
        store: What all processes share.
    """

    world: World
    store: dist.Store  # pyright: ignore[reportPrivateImportUsage]
    connection: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    connected: bool = False
    sent: int = 0

    def fit(self, resources: execution.Execution) -> execution.Execution:
        """Share the cores among the processes of this machine."""
        here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        threads = max(1, cores() // here)
        return replace(resources, threads=threads, workers=here, processes=self.world.size)

    def train(self, study: PlannedStudy, models: Sequence[TrainingSet], *, progress: Report) -> None:
        """Train one model at a time, on all processes."""
        check_processes(study, models, self.world.size)
        for model in models:
            self.send(folder=str(study.folder.path.resolve()), side=model.side, seed=model.seed)
            reported = 0

            def report(step: int, note: str) -> None:
                nonlocal reported
                progress(step - reported, note)
                reported = step

            self.train_together(study, model, report)

    def send(self, **message: object) -> None:
        """Send the next task to the other processes."""
        self.store.set(f"next/{self.sent}", json.dumps(message))
        self.sent += 1

    def train_together(self, study: PlannedStudy, model: TrainingSet, report: Report) -> None:
        """Train one model together with the other processes, which must all call it."""
        try:
            if not self.connected:
                store = dist.PrefixStore("group", self.store)  # pyright: ignore[reportPrivateImportUsage]
                self.connection.enter_context(connected(self.world, store, study.execution.device))
                self.connected = True
            train_one(study, model, progress=report, world=self.world)
        except ClipmemError:
            raise
        except RuntimeError as error:  # collectives raise various ones when another process has ended
            if not isinstance(error, dist.DistError) and "gloo" not in str(error):
                raise
            text = f"training {model.side}, seed {model.seed}: process {self.world.rank} lost another of "
            text += f"{self.world.size} processes. Run the same command again: finished models are not trained again."
            raise RunError(text) from error


def _engine() -> TorchrunEngine:
    store, rank, size = next(iter(dist.rendezvous("env://")))  # pyright: ignore[reportPrivateImportUsage]
    # ignores keys of earlier attempts
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    ours = dist.PrefixStore(f"clipmem/{attempt}", store)  # pyright: ignore[reportPrivateImportUsage]
    return TorchrunEngine(World(rank, size), ours)


@contextlib.contextmanager
def opened() -> Generator[TorchrunEngine]:
    """Open the engine of the first process; the other processes end with the block."""
    engine = _engine()
    try:
        with engine.connection:
            yield engine
            engine.send(end=True)
    except BaseException:
        engine.store.set(_FAILED, "1")
        raise


def follow() -> None:
    """Train models with the first process until it has finished the study (in the other processes)."""
    engine, number = _engine(), 0
    with engine.connection:
        while True:
            key = f"next/{number}"
            while not engine.store.check([key]):
                if engine.store.check([_FAILED]):
                    raise SystemExit(0)  # the first process's exit code is used
                time.sleep(_POLL)
            message = json.loads(engine.store.get(key))
            if "end" in message:
                return
            number += 1
            try:
                study = PlannedStudy(message["folder"])
                model = study.model(message["side"], message["seed"])
                engine.train_together(study, model, lambda step, note: None)  # noqa: ARG005
            except ClipmemError as error:
                until = time.monotonic() + _GRACE
                while time.monotonic() < until:
                    if engine.store.check([_FAILED]):
                        raise SystemExit(error.exit_code) from None  # without a message: the first one fails as well
                    time.sleep(_POLL)
                raise
