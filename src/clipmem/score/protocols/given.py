"""The given protocol: models that exist already, each target compared with the reference in its place.

score(pair) = mean over targets of A(target) - mean over references of A(reference): the arithmetic of four-way, where f
is the target and g the reference. Nothing is trained, so nothing is known of how the models came about. Not to be
trusted further than the user's word: whatever else differs between the models (architecture, other data, length of
training) counts as memorization here, and the bank, the external pairs, must be unseen by all of them.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Literal

import polars as pl

from clipmem.base.require import require
from clipmem.data.roles import read_roles
from clipmem.data.splits import assign_roles
from clipmem.score.design import Design
from clipmem.score.protocols.base import PROTOCOLS, Records
from clipmem.score.protocols.four_way import FourWay, twins
from clipmem.train.paired import OWN_ROLE, TrainingSet


@PROTOCOLS.register("given")
class Given(FourWay):
    """F is a target, g a reference; a seed is a place in the lists of both."""

    summary = "Models that exist already: each target with the reference in its place."
    trains: ClassVar[bool] = False
    paired = False

    @property
    def count(self) -> int:
        """One target and one reference a place."""
        return 2 * len(self.recipe.given.target)

    def design(self, splits: pl.DataFrame) -> Design:
        """Name the models; which pairs they were trained on is not known."""
        models = [TrainingSet(side, k, (), 0) for k in range(len(self.recipe.given.target)) for side in OWN_ROLE]
        return twins(models, splits.height)

    def check(self, design: Design, records: Records) -> None:
        """Nothing was recorded: there is nothing to check."""

    @property
    def trained_pairs(self) -> int:
        """None: the models exist already."""
        return 0

    def used_pairs(self, pairs: pl.DataFrame) -> int:
        """Return how many the roles file names; without one, all."""
        return self._roles(pairs["uid"], "leave out").height if self.recipe.given.roles else pairs.height

    def check_pairs(self, pairs: pl.DataFrame) -> None:
        """The roles file must fit the data, or there must be more pairs than go to the bank."""
        self._check(pairs, "refuse")

    def check_usable(self, pairs: pl.DataFrame) -> None:
        """Check the same of what decodes; rows of the roles file that name other pairs were right before."""
        self._check(pairs, "leave out")

    def _check(self, pairs: pl.DataFrame, others: Literal["refuse", "leave out"]) -> None:
        external = self.recipe.split.external
        if self.recipe.given.roles:
            self._roles(pairs["uid"], others)
        else:
            require(
                external < pairs.height,
                "[split] external",
                f"{external:,} of {pairs.height:,} pairs in the data",
                f"at most {pairs.height - 1:,}: the others are the candidates",
                "Make the bank smaller, for example with --set split.external=N.",
            )

    def split(self, pairs: pl.DataFrame, groups: Sequence[str]) -> pl.DataFrame:
        """Read the roles file; without one, draw whole groups for the bank, and measure all other pairs."""
        uids = pairs["uid"].to_list()
        grouped = pl.DataFrame({"uid": uids, "group": list(groups)})
        if self.recipe.given.roles:
            # `check_pairs` has seen them all: those that are gone now are the ones whose images do not decode
            return self._roles(pairs["uid"], "leave out").join(grouped, on="uid", maintain_order="left")
        sizes = {"shared": 0, "candidate": 0, "independent": 0, "external": self.recipe.split.external}
        drawn = assign_roles(uids, groups, sizes, seed=self.recipe.split.seed)
        return grouped.with_columns(
            pl.Series("role", [role or "candidate" for role in drawn]),
            pl.lit(value=False).alias("planted"),
            pl.col("uid").alias("captions_from"),
        ).sort("uid")

    def _roles(self, uids: pl.Series, others: Literal["refuse", "leave out"] = "refuse") -> pl.DataFrame:
        return read_roles(Path(self.recipe.given.roles), frozenset(uids.to_list()), others=others)
