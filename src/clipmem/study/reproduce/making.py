"""Make the runs that findings need, each once, in folders that outlive a stop; and say before how long it will take.

A finished run is only read again. An unfinished one goes on where it stopped, as `clipmem run` does. Folders are named
after what differs in them and the hash of their recipe (see `wanted`).
"""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from clipmem.base.errors import InputError
from clipmem.base.machine import cores
from clipmem.base.progress import Quiet, Reporter
from clipmem.base.recipes import Recipe
from clipmem.report.compare.run import ComparedRun, read_compared
from clipmem.store.atomic import atomic_write
from clipmem.store.folder import RunFolder
from clipmem.study import api
from clipmem.study.reproduce.wanted import Wanted

RUNS, INDEX = "runs", "runs.json"
_PROBE = ("train.epochs=2", "train.seeds=[0]")


@dataclass(frozen=True)
class Estimate:
    """How long the missing runs will take, from one short run on this machine.

    Attributes:
        runs: Runs that are missing.
        models: Models to be trained for them.
        seconds: Estimated seconds for all of them.
        rate: Pairs a second of one model, measured.
        overhead: Seconds of a run outside training, measured.
    """

    runs: int
    models: int
    seconds: float
    rate: float
    overhead: float


class Maker:
    """Makes runs in a folder and reads them.

    Args:
        out: The folder of the reproduction.
        base: The recipe of the base study.
        device: `auto`, `cpu` or `cuda`.
        engine: Who trains (see `clipmem.run`).
        reporter: Who is told of each run's stages.
    """

    def __init__(
        self, out: Path, base: Recipe, *, device: str = "auto", engine: str = "local", reporter: Reporter | None = None
    ) -> None:
        self._out, self._base = out, base
        self._device, self._engine, self._reporter = device, engine, reporter or Quiet()
        self._opened: dict[str, ComparedRun] = {}

    def place(self, wanted: Wanted) -> Path:
        """Return the folder of a run."""
        return self._out / RUNS / wanted.key(self._base)

    def is_made(self, wanted: Wanted) -> bool:
        """Tell whether a run is finished, its layers too where they are wanted."""
        folder = RunFolder(self.place(wanted))
        return folder.is_done("report") and (folder.is_done("localize") or not wanted.localize)

    def make(self, wanted: Wanted) -> None:
        """Make a run, or what is left of it.

        Raises:
            InputError: Its recipe is wrong, or the data have too few pairs for it.
            RunError: It failed.
        """
        folder = self.place(wanted)
        if not RunFolder(folder).is_done("report"):
            self._run(wanted.recipe(self._base, self.place), folder, self._reporter)
        if wanted.localize:
            from clipmem.study.localizing import localize_run

            localize_run(folder, reporter=self._reporter)

    def _run(self, recipe: Recipe, folder: Path, reporter: Reporter) -> None:
        api.run(
            recipe,
            folder,
            device=self._device,
            engine=self._engine,
            reporter=reporter,
            command="clipmem reproduce",
            # `reproduce` has said how long everything takes
            allow_long=True,
        )

    def open(self, wanted: Wanted) -> ComparedRun:
        """Read a finished run; each is read once."""
        key = wanted.key(self._base)
        if key not in self._opened:
            self._opened[key] = read_compared(self.place(wanted))
        return self._opened[key]

    def seconds(self, wanted: Wanted) -> float:
        """Return how long a finished run took, all stages together."""
        return sum(took for stage, took in RunFolder(self.place(wanted)).seconds().items() if "-seed-" not in stage)

    def write_index(self, runs: Mapping[str, Wanted]) -> None:
        """Write which run is in which folder, in words."""
        index = {
            wanted.key(self._base): {"name": name, "settings": list(wanted.settings)} for name, wanted in runs.items()
        }
        atomic_write(self._out / INDEX, (json.dumps(index, indent=1, ensure_ascii=False) + "\n").encode())

    # ---- estimate

    def estimate(self, runs: Iterable[Wanted]) -> Estimate:
        """Estimate the time of the runs that are missing, from one short run, which is made if it is not there."""
        missing = [wanted for wanted in runs if not self.is_made(wanted)]
        models = 2 * len(self._base.train.seeds)
        if not missing:
            return Estimate(0, 0, 0.0, 0.0, 0.0)
        folder = self._out / "probe"
        if not RunFolder(folder).is_done("report"):
            self._run(Wanted(_PROBE).recipe(self._base), folder, Quiet())
        probe = read_compared(folder)
        rate = min(float(marker["pairs_per_second"]) for marker in probe.markers.values())
        spent = RunFolder(folder).seconds()
        trained = 2 * probe.presentations / rate
        workers = min(models, cores())
        overhead = sum(spent[stage] for stage in ("decode", "plan", "score", "report"))
        # starting processes, embedding and evaluating grow with the number of models
        each = (max(0.0, spent["train"] - trained / 2) + (spent["embed"] + spent["evaluate"]) / 2) * models / 2
        seconds = sum(
            overhead + each + models * self._presentations(wanted) * wanted.cost / rate / workers for wanted in missing
        )
        return Estimate(len(missing), models * len(missing), seconds, rate, overhead + each)

    def _presentations(self, wanted: Wanted) -> int:
        recipe = wanted.recipe(self._base)
        return recipe.train.epochs * (recipe.split.shared + recipe.split.candidate)


def unique(base: Recipe, wanted: Iterable[tuple[str, Wanted]]) -> dict[str, Wanted]:
    """Keep each run once, in the order of the first time it is named; one that must be localized stays so.

    A run comes after its parent.

    Raises:
        InputError: A run's recipe is wrong.
    """
    found: dict[str, tuple[str, Wanted]] = {}
    for name, run in wanted:
        for one_name, one in ([(f"parent of {name}", run.parent)] if run.parent else []) + [(name, run)]:
            key = one.key(base)
            if key not in found or (one.localize and not found[key][1].localize):
                found[key] = (found[key][0] if key in found else one_name, one)
    names: dict[str, Wanted] = {}
    for name, run in found.values():
        if name in names:
            raise InputError(
                f"run {name!r}", got="two runs of that name", hint="Report this: it is a mistake in clipmem."
            )
        names[name] = run
    return names


def make_all(maker: Maker, runs: Mapping[str, Wanted], say: Callable[[str], object]) -> None:
    """Make every run that is missing, and say which one it is."""
    for number, (name, wanted) in enumerate(runs.items(), start=1):
        if maker.is_made(wanted):
            say(f"run {number} of {len(runs)}: {name}: done before")
            continue
        say(f"run {number} of {len(runs)}: {name}")
        maker.make(wanted)
