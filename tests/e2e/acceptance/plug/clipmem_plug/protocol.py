"""The protocol `thirds`: three models a seed, each trained without one third of the pool."""

import numpy as np
import polars as pl
from pydantic import Field

from clipmem.base.random import generator
from clipmem.base.sections import Section, Seed
from clipmem.scoring.design import Design
from clipmem.scoring.protocols.base import Protocol
from clipmem.train.paired import TrainingSet


class Thirds(Protocol):
    """clipmem = mean A of the two models that trained on the pair, minus A of the one that did not."""

    summary = "Three models a seed, each without one third of the pairs: every pair is measured."
    paired = True  # the three of a seed score every pair: runs compare seed by seed
    words = {"distributions": "Scores of the pairs and of the control"}

    class Settings(Section):
        """`[thirds]`."""

        draw: Seed = Field(0, description="Seed of the draw of the thirds.")

    @property
    def count(self):
        return 3 * len(self.recipe.train.seeds)

    def roles(self, splits):
        return splits.with_columns(role=pl.col("role").replace(["shared", "independent"], "candidate"))

    def design(self, splits):
        names, group = np.unique(splits["group"].to_numpy(), return_inverse=True)
        third = generator(self.settings.draw, "thirds").permutation(len(names))[group] % 3
        pool, uids = splits["role"].to_numpy() != "external", splits["uid"].to_numpy()
        had = [tuple(uids[pool & (third != k)].tolist()) for k in range(3)]
        most, each = max(map(len, had)), [(seed, k) for seed in self.recipe.train.seeds for k in range(3)]
        models = [TrainingSet(f"third-{k}", seed, had[k], 0, largest=most) for seed, k in each]
        return Design(models, np.array([np.where(third == k, -1, 1) for _, k in each], dtype=np.int8))
