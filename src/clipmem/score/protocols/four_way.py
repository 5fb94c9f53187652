"""The four-way protocol: f saw shared + candidate, g saw shared + independent, external is bank and control.

Trust the order of single pairs only as far as their errors allow: one seed gives none, two give wide ones.
"""

import numpy as np
import polars as pl

from clipmem.score.design import Design
from clipmem.score.protocols.base import PROTOCOLS, Protocol, Records
from clipmem.train.paired import OWN_ROLE, TrainingSet, check_paired, training_set


def twins(models: list[TrainingSet], n: int) -> Design:
    """Return the design in which every f counts as having seen all of n pairs, and every g as having seen none."""
    signs = [[1 if model.side == "f" else -1] * n for model in models]
    return Design(models, np.array(signs, dtype=np.int8))


@PROTOCOLS.register("four-way")
class FourWay(Protocol):
    """clipmem = mean over seeds of A(f) - mean over seeds of A(g); the error is over seeds."""

    summary = "One f and one g a seed: some pairs are measured."
    paired = True

    @property
    def count(self) -> int:
        """Two models a seed."""
        return 2 * len(self.recipe.train.seeds)

    def design(self, splits: pl.DataFrame) -> Design:
        """One f and one g for each seed."""
        models = [training_set(splits, side, seed) for seed in self.recipe.train.seeds for side in OWN_ROLE]
        return twins(models, splits.height)

    def check(self, design: Design, records: Records) -> None:
        """F and g of a seed must differ in their own pairs and in nothing else."""
        for seed in design.seeds:
            check_paired({side: records[side, seed] for side in OWN_ROLE})
