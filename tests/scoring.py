"""Calls the four-way protocol on parts that a test made, without any training."""

from typing import NamedTuple

import polars as pl

from clipmem.score.four_way import FourWay
from clipmem.testing.tiny import tiny_recipe
from clipmem.train.paired import TrainingSet


class Scored(NamedTuple):
    scores: pl.DataFrame
    seed_scores: pl.DataFrame
    normaliser: float


def score(splits, parts, *, weight, confidence):
    """Score parts given as side → seed → AlignmentParts."""
    recipe = tiny_recipe(
        f"score.weight={float(weight)}", f"score.confidence={confidence}", f"train.seeds={sorted(parts['f'])}"
    )
    models = [TrainingSet(side, seed, (), 0) for seed in sorted(parts["f"]) for side in "fg"]
    made = FourWay(recipe).score(splits, models, [parts[model.side][model.seed] for model in models])
    candidates = made.scores.filter(pl.col("role") == "candidate")["clipmem"]
    return Scored(*made, candidates.max() - candidates.min())
