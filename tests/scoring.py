"""Calls the four-way protocol on parts that a test made, without any training."""

from typing import NamedTuple

import polars as pl

from clipmem.scoring import summary
from clipmem.scoring.design import combine
from clipmem.scoring.protocols.four_way import paired_design
from clipmem.train.paired import TrainingSet


class Scored(NamedTuple):
    scores: pl.DataFrame
    seed_scores: pl.DataFrame
    normalizer: float


def score(splits, parts, *, weight, confidence):
    """Score parts given as side → seed → AlignmentParts; `base` has one seed, if any."""
    models = [TrainingSet(side, seed, (), 0) for seed in sorted(parts["f"]) for side in "fg"]
    design = paired_design(models, splits.height)
    every = [parts[model.side][model.seed] for model in models] + list(parts.get("base", {}).values())
    made = combine(design, splits, every, weight=weight, confidence=confidence)
    candidates = made.scores.filter(pl.col("role") == "candidate")["clipmem"]
    return Scored(*made, candidates.max() - candidates.min())


def scored_with(**arrays):
    """Score tables of which only these arrays are read."""
    scored = object.__new__(summary.Scored)
    vars(scored).update(arrays)
    return scored
