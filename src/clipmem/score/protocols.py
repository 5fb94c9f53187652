"""The protocols there are: importing this module registers them. A new one is one new file and one line here."""

import polars as pl

from clipmem.base.recipes import Recipe
from clipmem.score import four_way, given, leave_one_out, subsample
from clipmem.score.protocol import PROTOCOLS, Protocol
from clipmem.train.paired import TrainingSet

__all__ = ["PROTOCOLS", "four_way", "given", "leave_one_out", "protocol_of", "subsample", "training_set_of"]


def protocol_of(recipe: Recipe) -> Protocol:
    """Return the protocol that a recipe names."""
    return PROTOCOLS[recipe.protocol](recipe)


def training_set_of(recipe: Recipe, splits: pl.DataFrame, side: str, seed: int) -> TrainingSet:
    """Return the training set of one model of a study."""
    [found] = [one for one in protocol_of(recipe).training_sets(splits) if (one.side, one.seed) == (side, seed)]
    return found
