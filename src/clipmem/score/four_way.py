"""The four-way protocol: f saw shared + candidate, g saw shared + independent, external is bank and control.

Trust the order of single pairs only as far as their errors allow: one seed gives none, two give wide ones.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
import torch

from clipmem.base.random import derive_seed
from clipmem.functional import AlignmentParts, alignment, clipmem, range_normalise, seed_interval
from clipmem.score import summary
from clipmem.score.protocol import PROTOCOLS, Models, Protocol, ScoreTables, mean_parts
from clipmem.train.paired import OWN_ROLE, TrainingSet, check_paired, training_set

SIDES = tuple(OWN_ROLE)


@PROTOCOLS.register("four-way")
class FourWay(Protocol):
    """clipmem = mean over seeds of A(f) - mean over seeds of A(g); the error is over seeds."""

    @property
    def count(self) -> int:
        """Two models a seed."""
        return 2 * len(self.recipe.train.seeds)

    def training_sets(self, splits: pl.DataFrame) -> list[TrainingSet]:
        """One f and one g for each seed."""
        return [training_set(splits, side, seed) for seed in self.recipe.train.seeds for side in SIDES]

    def check(self, models: Models, records: Mapping[tuple[str, int], Mapping[str, Any]]) -> None:  # noqa: ARG002
        """F and g of a seed must differ in their own pairs and in nothing else."""
        for seed in self.recipe.train.seeds:
            check_paired({side: records[side, seed] for side in SIDES})

    def score(self, splits: pl.DataFrame, models: Models, parts: Sequence[AlignmentParts]) -> ScoreTables:
        """Score every pair; stderr, low and high are null with one seed."""
        return score_tables(
            splits, models, parts, weight=self.recipe.score.weight, confidence=self.recipe.score.confidence
        )

    def summarize(self, splits: pl.DataFrame, tables: ScoreTables, *, seed: int) -> dict[str, Any]:
        """Summarize over seeds and groups of pairs."""
        scored = summary.Scored(splits, tables.scores, tables.seed_scores)
        settings = self.recipe.score
        return {
            "seeds": scored.seeds,
            "roles": summary.roles(
                scored, seed=derive_seed(seed, "roles"), draws=settings.draws, confidence=settings.confidence
            ),
            "tests": summary.tests(scored, confidence=settings.confidence),
            "paired": summary.paired(scored, confidence=settings.confidence),
            "noise_floor": summary.floor(
                scored, seed=derive_seed(seed, "floor"), draws=settings.draws, confidence=settings.confidence
            ),
            "stability": summary.stability(scored, confidence=settings.confidence),
            "planted": summary.planted(scored, confidence=settings.confidence),
        }


def score_tables(
    splits: pl.DataFrame,
    models: Models,
    parts: Sequence[AlignmentParts],
    *,
    weight: float = 1.0,
    confidence: float = 0.95,
    norm: bool = True,
) -> ScoreTables:
    """Subtract the alignments under the models g from those under the models f.

    Args:
        splits: uid, role and planted of each pair; the rows of every part follow it.
        models: The models: equally many f and g.
        parts: The alignment parts of all pairs under each model.
        weight: w of the alignment, >= 0.
        confidence: Level of the intervals, between 0 and 1.
        norm: Compute `clipmem_norm`, which needs candidates that differ; without, it is null.

    Raises:
        InputError: There is no range of the candidates to divide by, or an alignment is not finite.
    """
    of_side = {side: [k for k, model in enumerate(models) if model.side == side] for side in SIDES}
    aligned = {side: torch.stack([alignment(parts[k], weight=weight) for k in of_side[side]]) for side in SIDES}
    values = clipmem(aligned["f"], aligned["g"])
    candidates = torch.from_numpy((splits["role"] == "candidate").to_numpy())
    scaled = range_normalise(values, candidates)[0] if norm else torch.full_like(values, torch.nan)
    interval = seed_interval((aligned["f"] - aligned["g"]).numpy(), confidence)
    columns = {"clipmem": values.numpy(), "clipmem_norm": scaled.numpy(), **interval._asdict()}
    for side in SIDES:
        means = mean_parts([parts[k] for k in of_side[side]])
        columns |= {f"{side}_{name}": mean.numpy() for name, mean in means.items()}
    seeds = [models[k].seed for k in of_side["f"]]
    return ScoreTables(
        score_rows(splits, columns),
        pl.concat([seed_rows(splits, seed, aligned["f"][k], aligned["g"][k]) for k, seed in enumerate(seeds)]),
    )


def score_rows(splits: pl.DataFrame, columns: Mapping[str, np.ndarray]) -> pl.DataFrame:
    """Put columns beside uid, role and planted; NaN becomes null."""
    return splits.select("uid", "role", "planted").with_columns(
        *(pl.Series(name, column).fill_nan(None) for name, column in columns.items())
    )


def seed_rows(splits: pl.DataFrame, seed: int, f: torch.Tensor, g: torch.Tensor) -> pl.DataFrame:
    """Tabulate the alignment of every pair under the models of one seed; NaN becomes null."""
    return splits.select("uid").with_columns(
        pl.lit(seed, pl.Int64).alias("seed"),
        pl.Series("f", f.numpy()).fill_nan(None),
        pl.Series("g", g.numpy()).fill_nan(None),
    )
