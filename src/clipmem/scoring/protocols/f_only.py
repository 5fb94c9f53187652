"""The f-only protocol: f of the four-way protocol, the same to the last bit, without g and so without scores.

It measures the utility of a mitigation, such as a removal chosen by an earlier four-way run, for half the time.
"""

import polars as pl

from clipmem.scoring.design import Design
from clipmem.scoring.protocols.base import PROTOCOLS, Protocol
from clipmem.scoring.protocols.four_way import twins
from clipmem.train.paired import training_set


@PROTOCOLS.register("f-only")
class FOnly(Protocol):
    """One f per seed, trained on shared + candidate; the external pairs measure its utility."""

    summary = "One f per seed and no g: measures utility alone, at half the cost of four-way."
    paired = True
    scored = False

    @property
    def count(self) -> int:
        """One model per seed."""
        return len(self.recipe.train.seeds)

    def design(self, splits: pl.DataFrame) -> Design:
        """One f per seed."""
        return twins([training_set(splits, "f", seed) for seed in self.recipe.train.seeds], splits.height)
