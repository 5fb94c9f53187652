"""Read what a finished four-way run contributes to a comparison: one number a seed for each measure, and its cost.

Only files are read: score tables, `evaluate/utility.json`, the models' records and the stages' markers. A run that an
older clipmem made may lack the utility or the memory; what is missing is left out of the comparison, never guessed.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import polars as pl

from clipmem.base.errors import InputError
from clipmem.base.recipes import Recipe
from clipmem.store import manifest
from clipmem.store.folder import SIDES, RunFolder

UTILITY_FILE = "evaluate/utility.json"
_STAGES = ("decode", "plan", "train", "embed", "score", "evaluate")


@dataclass(frozen=True, eq=False)
class ComparedRun:
    """A finished four-way run.

    Attributes:
        name: What it is called in the comparison: the name of its folder.
        folder: The run folder.
        recipe: Its recipe.
        manifest: Its manifest.
        splits: Table `splits`.
        seed_scores: Table `seed_scores`.
        normaliser: What `clipmem_norm` was divided by.
        records: What each training recorded, by side and seed.
        markers: What each training took, by side and seed.
    """

    name: str
    folder: RunFolder
    recipe: Recipe
    manifest: Mapping[str, Any]
    splits: pl.DataFrame
    seed_scores: pl.DataFrame
    normaliser: float
    records: Mapping[tuple[str, int], Mapping[str, Any]]
    markers: Mapping[tuple[str, int], Mapping[str, Any]]

    @property
    def seeds(self) -> list[int]:
        """The seeds, sorted."""
        return sorted(self.recipe.train.seeds)

    @property
    def presentations(self) -> int:
        """How often a pair was shown to a model, over the whole training."""
        return int(self.records["f", self.seeds[0]]["presentations"])

    @property
    def pairs(self) -> int:
        """Pairs that f trains on."""
        return int(self.records["f", self.seeds[0]]["pairs"])

    def uids(self, role: str) -> set[str]:
        """Return the pairs of a role."""
        return set(self.splits.filter(pl.col("role") == role)["uid"])

    @cached_property
    def planted(self) -> set[str]:
        """The pairs that trained with another pair's captions."""
        return set(self.splits.filter("planted")["uid"])

    def memorization(self, uids: set[str]) -> list[float]:
        """Return the mean of A(f) - A(g) over these pairs, one number a seed, in the order of `seeds`."""
        return self._by_seed(pl.col("f") - pl.col("g"), uids)

    def alignment(self, side: str, uids: set[str]) -> list[float]:
        """Return the mean of A under f or g over these pairs, one number a seed, in the order of `seeds`."""
        return self._by_seed(pl.col(side), uids)

    def _by_seed(self, value: pl.Expr, uids: set[str]) -> list[float]:
        rows = self.seed_scores.filter(pl.col("uid").is_in(list(uids)))
        means = dict(rows.sort("seed", "uid").group_by("seed").agg(value.mean().alias("mean")).iter_rows())
        return [float(means[seed]) for seed in self.seeds]

    @cached_property
    def utility(self) -> dict[str, list[float]]:
        """Each utility metric of f, one number a seed, in the order of `seeds`; {} of a run without it."""
        if not (self.folder.path / UTILITY_FILE).is_file():
            return {}
        return utility_by_seed(self.folder.read_json(UTILITY_FILE), "f", self.seeds)

    @property
    def seconds(self) -> float:
        """Seconds of all stages, the report's not among them; a stopped and resumed stage counts its last part."""
        spent = self.folder.seconds()
        return sum(spent[stage] for stage in _STAGES if stage in spent)


def utility_by_seed(document: Mapping[str, Any], side: str, seeds: list[int]) -> dict[str, list[float]]:
    """Take each metric's values by seed out of `evaluate/utility.json`.

    Args:
        document: The content of the file.
        side: `f` or `g`.
        seeds: The seeds, in the order wanted.

    Returns:
        Metric → values; {} where a seed was not measured (of many seeds only the first eight are).
    """
    there = document.get("seeds", {}).get(side, [])
    if not set(seeds) <= set(there):
        return {}
    place = [there.index(seed) for seed in seeds]
    return {
        name: [float(entry["by_seed"][k]) for k in place]
        for name, entry in document["metrics"].get(side, {}).items()
        if entry.get("by_seed") is not None
    }


def read_compared(path: Path) -> ComparedRun:
    """Read a run folder for a comparison.

    Raises:
        InputError: It is no run folder, its scores are not finished, or its protocol has no f and g of one seed.
    """
    folder = RunFolder(path)
    recipe = folder.recipe()
    if recipe.protocol != "four-way":
        raise InputError(
            f"run folder {path}",
            got=f"protocol {recipe.protocol!r}",
            expected="'four-way'",
            hint="Runs are compared seed by seed, and only this protocol trains one f and one g for each seed.",
        )
    if not folder.is_done("report"):
        raise InputError(
            f"run folder {path}",
            got="a run that is not finished",
            expected="a run whose stages are done",
            hint=f"Run `clipmem run RECIPE.toml --out {path}` again: it goes on where it stopped.",
        )
    models = [(side, seed) for side in SIDES for seed in recipe.train.seeds]
    return ComparedRun(
        path.resolve().name,
        folder,
        recipe,
        manifest.read(folder),
        folder.read("splits"),
        folder.read("seed_scores"),
        float(folder.read_json("summary.json")["normaliser"]),
        {(side, seed): folder.read_json(f"models/{side}/seed-{seed}/record.json") for side, seed in models},
        {(side, seed): folder.read_json(f"stages/train-{side}-seed-{seed}.json") for side, seed in models},
    )
