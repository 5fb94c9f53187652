"""The four-way protocol: f trains on shared + candidate, g on shared + independent; external is bank and control.

When not to trust it: the order of single pairs is uncertain. One seed gives no errors, two seeds wide ones.
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
        """Two models per seed."""
        return 2 * len(self.recipe.train.seeds)

    def design(self, splits: pl.DataFrame) -> Design:
        """One f and one g per seed."""
        models = [training_set(splits, side, seed) for seed in self.recipe.train.seeds for side in OWN_ROLE]
        return twins(models, splits.height)

    def check(self, design: Design, records: Records) -> None:
        """Check that f and g of a seed differ in their own pairs only."""
        for seed in design.seeds:
            check_paired({side: records[side, seed] for side in OWN_ROLE})
