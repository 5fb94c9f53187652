"""A finished four-way run for comparisons: the value of each measure by seed, and the cost of each model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import polars as pl

from clipmem.base.recipes import Recipe
from clipmem.base.require import require_one_of

# the utilities that reports and findings name, with their label
UTILITIES = {
    "retrieval_wordings_recall@5": "recall@5 over wordings",
    "retrieval_recall@5": "recall@5",
    "linear_probe_acc1": "linear probe",
    "zero_shot_acc1": "zero-shot",
    "image_retrieval_recall@5": "image recall@5",
    "text_retrieval_recall@5": "text recall@5",
}
# verdicts rest on the first of these that all runs have
PRIMARY = ("retrieval_wordings_recall@5", "retrieval_recall@5", "linear_probe_acc1")
LOWER_IS_BETTER = ("median_rank", "_loss")


@dataclass(frozen=True, eq=False)
class FinishedRun:
    """The tables and documents of a finished four-way run.

    `place` is its folder, for errors. `records` (`record.json`) and `markers` (time and memory of training) are by side
    and seed; `utility` maps metrics of f to values by seed, `chance` to what a random order or guess reaches, and
    `validation` to their values on other held-out pairs.
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
    chance: Mapping[str, float] = field(default_factory=dict[str, float])
    validation: Mapping[str, list[float]] = field(default_factory=dict[str, list[float]])

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

    def uids(self, role: str) -> set[str]:
        """Return the pairs of a role."""
        return set(self.splits.filter(pl.col("role") == role)["uid"])

    @cached_property
    def planted(self) -> set[str]:
        """The pairs that trained with another pair's captions."""
        return set(self.splits.filter("planted")["uid"])

    def memorization(self, uids: set[str], *, wordings: bool = False) -> list[float]:
        """Return the mean of A(f) - A(g) over these pairs for each of `seeds`; [] without pairs.

        With `wordings`, A is taken over all wordings of the captions; [] if it was not, for any of these pairs.
        """
        f, g = ("f_wordings", "g_wordings") if wordings else ("f", "g")
        rows = self.seed_scores.filter(pl.col("uid").is_in(list(uids))).sort("seed", "uid")
        if rows.is_empty() or f not in rows.columns or rows[f].null_count() or rows[g].null_count():
            return []
        means = dict(rows.group_by("seed").agg((pl.col(f) - pl.col(g)).mean().alias("mean")).iter_rows())
        return [float(means[seed]) for seed in self.seeds]

    def halved(self, candidates: set[str], independent: set[str], measure: str = "clipmem") -> list[float]:
        """Return the mean CLIPMem by seed as the half-difference: (mean over C - mean over I) / 2.

        The two roles are exchangeable, so it estimates the mean over C, and what makes f better or worse than g
        altogether cancels (`functional.half_difference`). Without independent pairs it is the mean over C.

        Args:
            candidates: Pairs C that f alone trained on.
            independent: Pairs I that g alone trained on.
            measure: `clipmem`; `clipmem_wordings`, over all wordings ([] if not measured); or `clipmem_norm`, which is
                clipmem divided by `normalizer`.
        """
        wordings, scale = measure == "clipmem_wordings", self.normalizer if measure == "clipmem_norm" else 1.0
        own = self.memorization(candidates, wordings=wordings)
        if not independent:
            return [value / scale for value in own]
        mirror = self.memorization(independent, wordings=wordings)
        return [(a - b) / 2 / scale for a, b in zip(own, mirror, strict=True)] if own and mirror else []


def utility_by_seed(
    document: Mapping[str, Any], side: str, seeds: list[int], key: str = "metrics"
) -> dict[str, list[float]]:
    """Return each metric's values by seed from `evaluate/utility.json`; {} if a seed was not measured."""
    there = document.get("seeds", {}).get(side, [])
    if not set(seeds) <= set(there):  # at most eight seeds are measured
        return {}
    place = [there.index(seed) for seed in seeds]
    return {
        name: [float(entry["by_seed"][k]) for k in place]
        for name, entry in document.get(key, {}).get(side, {}).items()
        if entry.get("by_seed") is not None
    }


def common_utilities(runs: Sequence[FinishedRun]) -> list[str]:
    """Return the metrics that all runs have."""
    return [name for name in runs[0].utility if all(name in run.utility for run in runs)]


def primary_utility(runs: Sequence[FinishedRun], name: str = "") -> str:
    """Return the metric that verdicts rest on: `name`, or the first of `PRIMARY` that all runs have.

    Without any of those it is the first metric that all runs have and that is better when higher; "" without one.
    """
    known = [one for one in common_utilities(runs) if not one.endswith(LOWER_IS_BETTER)]
    if name:
        require_one_of("--utility", name, known)
    return name or next((one for one in (*PRIMARY, *known) if one in known), "")
