"""Protocols with one f and one g per seed: those that a study trains, and existing models.

Of `four-way`, f trains on shared + candidate, g on shared + independent; external is bank and control. `f-only` is f of
`four-way`, the same to the last bit, without g and so without scores. It measures the utility of a mitigation, such as
a removal chosen by an earlier four-way run, for half the time. `given` compares each existing target with the reference
at its position: score(pair) = mean over targets of A(target) - mean over references of A(reference).

When not to trust `four-way`: the order of single pairs is uncertain. One seed gives no errors, two seeds wide ones.
When not to trust `given`: clipmem cannot verify how the models were trained. Any other difference between them
(architecture, data, length of training) counts as memorization, and no model may have trained on the external pairs.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import polars as pl

from clipmem.base.errors import require
from clipmem.data.splits import assign_roles
from clipmem.data.user_tables import read_roles
from clipmem.scoring.design import Design
from clipmem.scoring.protocols.base import PROTOCOLS, Protocol, Records
from clipmem.train.paired import OWN_ROLE, TrainingSet, check_paired, training_set


def paired_design(models: list[TrainingSet], n: int) -> Design:
    """Return the design in which every f has seen all n pairs, and every g none."""
    signs = np.array([1 if model.side == "f" else -1 for model in models], dtype=np.int8)
    return Design(models, np.repeat(signs[:, None], n, axis=1))


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
        return paired_design(models, splits.height)

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
    def stages(self) -> tuple[str, ...]:
        return ("train", "embed", "evaluate")

    @property
    def count(self) -> int:
        return len(self.recipe.train.seeds)

    def design(self, splits: pl.DataFrame) -> Design:
        return paired_design([training_set(splits, "f", seed) for seed in self.recipe.train.seeds], splits.height)


@PROTOCOLS.register("given")
class Given(FourWay):
    """F is a target, g a reference; the seed is their position in the lists."""

    summary = "Existing models: each target is compared with the reference at its position."
    trains: ClassVar[bool] = False
    paired = False

    @property
    def stages(self) -> tuple[str, ...]:
        return ("embed", "score", "evaluate", "report")

    @property
    def count(self) -> int:
        return 2 * len(self.recipe.given.target)

    def design(self, splits: pl.DataFrame) -> Design:
        """Return the models, whose training sets are unknown."""
        models = [TrainingSet(side, k, (), 0) for k in range(len(self.recipe.given.target)) for side in OWN_ROLE]
        return paired_design(models, splits.height)

    def check(self, design: Design, records: Records) -> None:
        """Check nothing: given models have no records."""

    @property
    def trained_pairs(self) -> int:
        return 0

    def used_pairs(self, pairs: pl.DataFrame) -> int:
        """Return the number of pairs in the roles file; without one, all."""
        return self._roles(pairs["uid"], "leave out").height if self.recipe.given.roles else pairs.height

    def check_pairs(self, pairs: pl.DataFrame) -> None:
        """Check that the roles file fits the data, or that the bank is smaller than the data."""
        self._check(pairs, "refuse")

    def check_usable(self, pairs: pl.DataFrame) -> None:
        """Check again, ignoring rows of the roles file whose images do not decode."""
        self._check(pairs, "leave out")

    def _check(self, pairs: pl.DataFrame, others: Literal["refuse", "leave out"]) -> None:
        external = self.recipe.split.external
        if self.recipe.given.roles:
            self._roles(pairs["uid"], others)
        else:
            got = f"{external:,} of {pairs.height:,} pairs in the data"
            expected = f"at most {pairs.height - 1:,}: the others are the candidates"
            hint = "Reduce the bank, for example with --set split.external=N."
            require(external < pairs.height, "[split] external", got, expected, hint)

    def split(self, pairs: pl.DataFrame, groups: Sequence[str]) -> pl.DataFrame:
        """Read the roles file; without one, sample groups for the bank, and measure all other pairs."""
        uids = pairs["uid"].to_list()
        grouped = pl.DataFrame({"uid": uids, "group": list(groups)})
        if self.recipe.given.roles:
            # `check_pairs` has checked all rows: missing ones are images that do not decode
            return self._roles(pairs["uid"], "leave out").join(grouped, on="uid", maintain_order="left")
        sizes = {"shared": 0, "candidate": 0, "independent": 0, "external": self.recipe.split.external}
        roles = assign_roles(uids, groups, sizes, seed=self.recipe.split.seed)
        return grouped.with_columns(
            pl.Series("role", [role or "candidate" for role in roles]),
            pl.lit(value=False).alias("planted"),
            pl.col("uid").alias("captions_from"),
        ).sort("uid")

    def _roles(self, uids: pl.Series, others: Literal["refuse", "leave out"] = "refuse") -> pl.DataFrame:
        return read_roles(Path(self.recipe.given.roles), frozenset(uids.to_list()), others=others)
