"""Protocols with twins: f trains on shared + candidate, g on shared + independent; external is bank and control.

`f-only` is f of `four-way`, the same to the last bit, without g and so without scores. It measures the utility of a
mitigation, such as a removal chosen by an earlier four-way run, for half the time.

When not to trust `four-way`: the order of single pairs is uncertain. One seed gives no errors, two seeds wide ones.
"""

import numpy as np
import polars as pl

from clipmem.scoring.design import Design
from clipmem.scoring.protocols.base import PROTOCOLS, Protocol, Records
from clipmem.train.paired import OWN_ROLE, TrainingSet, check_paired, training_set


def twins(models: list[TrainingSet], n: int) -> Design:
    """Return the design in which every f has seen all n pairs, and every g none."""
    signs = [[1 if model.side == "f" else -1] * n for model in models]
    return Design(models, np.array(signs, dtype=np.int8))


@PROTOCOLS.register("four-way")
class FourWay(Protocol):
    """clipmem = mean over seeds of A(f) - mean over seeds of A(g); the error is over seeds."""

    summary = "One f and one g per seed: measures some pairs."
    paired = True

    @property
    def count(self) -> int:
        return 2 * len(self.recipe.train.seeds)

    def design(self, splits: pl.DataFrame) -> Design:
        models = [training_set(splits, side, seed) for seed in self.recipe.train.seeds for side in OWN_ROLE]
        return twins(models, splits.height)

    def check(self, design: Design, records: Records) -> None:
        """Check that f and g of a seed differ in their own pairs only."""
        for seed in design.seeds:
            check_paired({side: records[side, seed] for side in OWN_ROLE})


@PROTOCOLS.register("f-only")
class FOnly(Protocol):
    """One f per seed, trained on shared + candidate; the external pairs measure its utility."""

    summary = "One f per seed and no g: measures utility alone, at half the cost of four-way."
    paired = True
    scored = False

    @property
    def count(self) -> int:
        return len(self.recipe.train.seeds)

    def design(self, splits: pl.DataFrame) -> Design:
        return twins([training_set(splits, "f", seed) for seed in self.recipe.train.seeds], splits.height)
