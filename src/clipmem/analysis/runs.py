"""A finished four-way run for comparisons: the value of each measure by seed, and the cost of each model."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import polars as pl

from clipmem.base.recipes import Recipe


@dataclass(frozen=True, eq=False)
class FinishedRun:
    """The tables and documents of a finished four-way run.

    `place` is its folder, for errors. `records` (`record.json`) and `markers` (time and memory of training) are by side
    and seed; `utility` maps metrics of f to values by seed. `more` holds functions that read rarely used tables.
    """

    name: str
    place: str
    recipe: Recipe
    manifest: Mapping[str, Any]
    splits: pl.DataFrame
    seed_scores: pl.DataFrame
    normalizer: float
    records: Mapping[tuple[str, int], Mapping[str, Any]]
    markers: Mapping[tuple[str, int], Mapping[str, Any]]
    utility: Mapping[str, list[float]]
    seconds: float
    more: Mapping[str, Callable[[], pl.DataFrame]] = field(default_factory=dict[str, Callable[[], pl.DataFrame]])

    @property
    def seeds(self) -> list[int]:
        """The seeds, sorted."""
        return sorted(self.recipe.train.seeds)

    @property
    def trained(self) -> bool:
        """Whether its models were trained in it, and not made from those of another run."""
        return not any("made_from" in marker for marker in self.markers.values())

    @property
    def presentations(self) -> int:
        """Number of pairs shown to a model over the whole training, with repetition."""
        return int(next(iter(self.records.values()))["presentations"])

    @property
    def pairs(self) -> int:
        """Number of pairs that a model trains on."""
        return int(next(iter(self.records.values()))["pairs"])

    @property
    def passes(self) -> float:
        """Average number of times a model saw each pair."""
        return self.presentations / self.pairs

    def table(self, name: str) -> pl.DataFrame:
        """Read one of the tables in `more`."""
        return self.more[name]()

    def uids(self, role: str) -> set[str]:
        """Return the pairs of a role."""
        return set(self.splits.filter(pl.col("role") == role)["uid"])

    @cached_property
    def planted(self) -> set[str]:
        """The pairs that trained with another pair's captions."""
        return set(self.splits.filter("planted")["uid"])

    def memorization(self, uids: set[str]) -> list[float]:
        """Return the mean of A(f) - A(g) over these pairs for each of `seeds`."""
        rows = self.seed_scores.filter(pl.col("uid").is_in(list(uids))).sort("seed", "uid")
        means = dict(rows.group_by("seed").agg((pl.col("f") - pl.col("g")).mean().alias("mean")).iter_rows())
        return [float(means[seed]) for seed in self.seeds]

    def scores(self, seed: int) -> dict[str, float]:
        """Return A(f) - A(g) of every pair under a seed, by uid."""
        rows = self.seed_scores.filter(pl.col("seed") == seed)
        return dict(rows.select("uid", pl.col("f") - pl.col("g")).iter_rows())


def utility_by_seed(document: Mapping[str, Any], side: str, seeds: list[int]) -> dict[str, list[float]]:
    """Return each metric's values by seed from `evaluate/utility.json`; {} if a seed was not measured."""
    there = document.get("seeds", {}).get(side, [])
    if not set(seeds) <= set(there):  # at most eight seeds are measured
        return {}
    place = [there.index(seed) for seed in seeds]
    return {
        name: [float(entry["by_seed"][k]) for k in place]
        for name, entry in document["metrics"].get(side, {}).items()
        if entry.get("by_seed") is not None
    }
