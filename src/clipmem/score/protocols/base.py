"""What a protocol is: which models there are, and which of them saw which pair.

One file a protocol, registered in `PROTOCOLS`. The stages of a study know this class and `Design`, and nothing else;
scores never depend on which protocol made the models.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import polars as pl

from clipmem.base.declared import own_settings
from clipmem.base.errors import InputError
from clipmem.base.recipes import Recipe
from clipmem.base.registry import Registry
from clipmem.base.section import Section
from clipmem.data.splits import ROLES, split_table
from clipmem.score.design import Design
from clipmem.train.paired import check_alike

Records = Mapping[tuple[str, int], Mapping[str, Any]]


class Protocol(ABC):
    """How f and g come about.

    Args:
        recipe: The recipe of the study.

    Attributes:
        name: What `protocol` calls it.
        summary: How they do, in one line.
        Settings: The table that it brings to the recipe, under its name; None for none.
        trains: Whether the study trains its models; if not, they exist already.
        paired: Whether the models of each seed of `train.seeds` score every pair, so that runs compare seed by seed.
        words: What reports call things, where they are other than for four-way (see `report/templates/words.toml`).
    """

    name: ClassVar[str] = ""
    summary: ClassVar[str] = ""
    Settings: ClassVar[type[Section] | None] = None
    trains: ClassVar[bool] = True
    paired: ClassVar[bool] = False
    words: ClassVar[Mapping[str, Any]] = {}

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe

    @property
    def settings(self) -> Any:
        """Its own table of the recipe."""
        return own_settings(self.recipe, self.name)

    @property
    @abstractmethod
    def count(self) -> int:
        """How many models the study has."""

    @abstractmethod
    def design(self, splits: pl.DataFrame) -> Design:
        """Return what each model trains on and which pairs it counts for."""

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
                "for example with --set split.external=N.",
            )

    def check_usable(self, pairs: pl.DataFrame) -> None:
        """Check again, once images that do not decode have been left out; by default as `check_pairs`."""
        self.check_pairs(pairs)

    def used_pairs(self, pairs: pl.DataFrame) -> int:  # noqa: ARG002
        """Return how many of the data's pairs the study uses: by default as many as the four roles ask for."""
        return sum(int(getattr(self.recipe.split, role)) for role in ROLES)

    @property
    def trained_pairs(self) -> int:
        """How many pairs each model trains on: by default f's, the shared ones and the candidates."""
        return self.recipe.split.shared + self.recipe.split.candidate

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

    def check(self, design: Design, records: Records) -> None:  # noqa: ARG002
        """Check from the training records (`record.json`, by side and seed) that the models are comparable.

        Raises:
            RunError: They are not.
        """
        check_alike(records)


PROTOCOLS: Registry[Protocol] = Registry("protocol", Protocol)  # pyright: ignore[reportAbstractUsage]
