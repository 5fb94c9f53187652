"""What a protocol is: which models there are, who trains on what, and how their alignments become scores.

One file a protocol, registered in `PROTOCOLS`. The stages of a study know this class and nothing else; scores never
depend on which protocol made the models.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import polars as pl
import torch
from jaxtyping import Float
from torch import Tensor

from clipmem.base.errors import InputError
from clipmem.base.recipes import Recipe
from clipmem.base.registry import Registry
from clipmem.data.splits import ROLES, split_table
from clipmem.functional import AlignmentParts
from clipmem.train.paired import TrainingSet

PARTS = ("positive", "image_bank", "text_bank")
Models = Sequence[TrainingSet]


class ScoreTables(NamedTuple):
    """A study's score tables, rows of `scores` sorted by uid (see `clipmem.store.tables`)."""

    scores: pl.DataFrame
    seed_scores: pl.DataFrame


class Protocol(ABC):
    """How f and g come about.

    Args:
        recipe: The recipe of the study.

    Attributes:
        trains: Whether the study trains its models; if not, they are there already.
    """

    trains = True

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe

    def roles(self, splits: pl.DataFrame) -> pl.DataFrame:
        """Adapt the four-way split table to this protocol; by default it stays as it is."""
        return splits

    def check_pairs(self, pairs: pl.DataFrame) -> None:
        """Check, before anything is written, that the data have the pairs that the recipe asks for.

        Raises:
            InputError: They have not.
        """
        split, there, asked = self.recipe.split, pairs.height, self.used_pairs(pairs)
        if asked > there:
            raise InputError(
                "[split]",
                got=f"{asked:,} pairs asked for (shared {split.shared:,} + candidate {split.candidate:,} + independent "
                f"{split.independent:,} + external {split.external:,}), {there:,} in the data",
                expected=f"at most {there:,} in all",
                hint="Let `clipmem init FILE --data PATH` write a recipe with roles that fit, or set smaller ones, "
                "for example with --set split.shared=N.",
            )

    def used_pairs(self, pairs: pl.DataFrame) -> int:  # noqa: ARG002
        """Return how many of the data's pairs the study uses: by default as many as the four roles ask for."""
        split = self.recipe.split
        return split.shared + split.candidate + split.independent + split.external

    def check_usable(self, pairs: pl.DataFrame) -> None:
        """Check again, once pictures that do not decode have been left out; by default as `check_pairs`.

        Raises:
            InputError: Too few pairs are left.
        """
        self.check_pairs(pairs)

    def split(self, pairs: pl.DataFrame, groups: Sequence[str]) -> pl.DataFrame:
        """Make the split table: by default the four-way split, adapted by `roles`.

        Args:
            pairs: The table `pairs`.
            groups: Group of each pair: pairs of one group are kept in one role.
        """
        split, k = self.recipe.split, self.recipe.train.captions
        table = split_table(
            pairs["uid"].to_list(),
            groups,
            {role: getattr(split, role) for role in ROLES},
            planted=split.planted,
            seed=split.seed,
            captions={uid: texts[:k] for uid, texts in zip(pairs["uid"], pairs["captions"].to_list(), strict=True)},
        )
        return self.roles(table)

    @property
    @abstractmethod
    def count(self) -> int:
        """How many models the study has."""

    @property
    def trained_pairs(self) -> int:
        """How many pairs each model trains on: by default f's, the shared ones and the candidates."""
        return self.recipe.split.shared + self.recipe.split.candidate

    @abstractmethod
    def training_sets(self, splits: pl.DataFrame) -> list[TrainingSet]:
        """Return what each model of the study trains on, in the order in which they are trained."""

    @abstractmethod
    def check(self, models: Models, records: Mapping[tuple[str, int], Mapping[str, Any]]) -> None:
        """Check from the training records that the models are comparable.

        Args:
            models: The models.
            records: The `record.json` of each model, by side and seed.

        Raises:
            RunError: They are not.
        """

    @abstractmethod
    def score(self, splits: pl.DataFrame, models: Models, parts: Sequence[AlignmentParts]) -> ScoreTables:
        """Combine the models' alignments into score tables.

        Args:
            splits: The split table; the rows of every part follow it.
            models: The models.
            parts: The alignment parts of all pairs under each model.
        """

    @abstractmethod
    def summarize(self, splits: pl.DataFrame, tables: ScoreTables, *, seed: int) -> dict[str, Any]:
        """Say what the tables show: roles, tests, noise floor, stability, planted pairs (see `summary.json`)."""


PROTOCOLS: Registry[Protocol] = Registry("protocol", Protocol)  # pyright: ignore[reportAbstractUsage]


def mean_parts(parts: Sequence[AlignmentParts]) -> dict[str, Float[Tensor, " n"]]:
    """Average each part over models."""
    return {name: torch.stack([getattr(one, name) for one in parts]).mean(dim=0) for name in PARTS}
