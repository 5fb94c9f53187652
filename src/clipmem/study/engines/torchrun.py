"""One model on many processes: what `torchrun -m clipmem run` does. The first process makes the study, others help."""

import contextlib
import json
import os
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch.distributed as dist

from clipmem.base.errors import ClipmemError, RunError
from clipmem.base.machine import cores
from clipmem.store.folder import RunFolder
from clipmem.study import execution
from clipmem.study.plan import PlannedStudy
from clipmem.study.pool import LocalEngine, TimeBreakdown, check_processes
from clipmem.study.work import train_one
from clipmem.train.distributed import World, connected
from clipmem.train.paired import TrainingSet

_POLL, _GRACE = 0.1, 5.0
_SAID = "said"  # set by the first process when it ends with an error: it has said why


@dataclass
class _Team:
    """A process's place among those of torchrun, and the store that they share."""

    world: World
    store: dist.Store  # pyright: ignore[reportPrivateImportUsage]
    connection: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    connected: bool = False

    def train(self, study: PlannedStudy, side: str, seed: int, say: Callable[[int, str], object]) -> dict[str, float]:
        """Train one model together with the others; all of them must call it."""
        with self._explained(side, seed):
            if not self.connected:
                store = dist.PrefixStore("group", self.store)  # pyright: ignore[reportPrivateImportUsage]
                self.connection.enter_context(connected(self.world, store, study.how.device))
                self.connected = True
            return train_one(study, side, seed, say=say, world=self.world)

    @contextlib.contextmanager
    def _explained(self, side: str, seed: int) -> Generator[None]:
        """Say in one line when another process is gone: the collectives raise what they please."""
        try:
            yield
        except ClipmemError:
            raise
        except RuntimeError as error:
            if not isinstance(error, dist.DistError) and "gloo" not in str(error):
                raise
            raise RunError(
                f"training {side}, seed {seed}: process {self.world.rank} lost another one of {self.world.size}. "
                "Run the same command again: finished models are not trained again."
            ) from error


class TorchrunEngine(LocalEngine):
    """The first process's engine: trains one model after another with all processes; embeds alone."""

    def __init__(self, team: _Team) -> None:
        self._team, self._count = team, 0

    def fit(self, how: execution.Execution) -> execution.Execution:
        """Share the cores among the processes of this machine."""
        here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        threads = max(1, cores() // here)
        return replace(how, threads=threads, workers=here, processes=self._team.world.size)

    def train(
        self, study: PlannedStudy, models: Sequence[TrainingSet], *, progress: Callable[[int, str], object]
    ) -> TimeBreakdown:
        """Train the models one after another, each on all processes."""
        check_processes(study, models, self._team.world.size)
        spent, began = TimeBreakdown(), time.monotonic()
        for model in models:
            self.tell(folder=str(study.folder.path.resolve()), side=model.side, seed=model.seed)
            told = 0

            def say(step: int, note: str) -> None:
                nonlocal told
                progress(step - told, note)
                told = step

            spent.add(self._team.train(study, model.side, model.seed, say))
        # of the first process: the others do the same at the same time
        spent.total = time.monotonic() - began
        return spent

    def tell(self, **message: object) -> None:
        """Tell the other processes what comes next."""
        self._team.store.set(f"next/{self._count}", json.dumps(message))
        self._count += 1


def _team() -> _Team:
    store, rank, size = next(iter(dist.rendezvous("env://")))  # pyright: ignore[reportPrivateImportUsage]
    # what an earlier try of these processes has left in the store is not for us
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    ours = dist.PrefixStore(f"clipmem/{attempt}", store)  # pyright: ignore[reportPrivateImportUsage]
    return _Team(World(rank, size), ours)


@contextlib.contextmanager
def opened() -> Generator[TorchrunEngine]:
    """Give the first process its engine; when the block ends, the other processes end too."""
    team = _team()
    chosen = TorchrunEngine(team)
    try:
        with team.connection:
            yield chosen
            chosen.tell(end=True)
    except BaseException:
        team.store.set(_SAID, "1")
        raise


def follow() -> None:
    """Be one of the other processes: train what the first one says, until it has finished the study."""
    team = _team()
    number = 0
    with team.connection:
        while True:
            key = f"next/{number}"
            while not team.store.check([key]):
                if team.store.check([_SAID]):
                    raise SystemExit(0)  # the first process's exit code is the one that counts
                time.sleep(_POLL)
            message = json.loads(team.store.get(key))
            if "end" in message:
                return
            number += 1
            try:
                study = PlannedStudy(RunFolder(Path(message["folder"])))
                team.train(study, message["side"], message["seed"], _silent)
            except ClipmemError as error:
                _leave_it_to_the_first(team, error)
                raise


def _silent(step: int, note: str) -> None:
    """Say nothing: the first process tells of the progress."""


def _leave_it_to_the_first(team: _Team, error: ClipmemError) -> None:
    """Wait whether the first process says the same; the launcher ends this one when that has happened."""
    until = time.monotonic() + _GRACE
    while time.monotonic() < until:
        if team.store.check([_SAID]):
            raise SystemExit(error.exit_code)
        time.sleep(_POLL)
