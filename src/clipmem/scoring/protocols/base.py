"""Base class of protocols: the models of a study, and which model trained on which pair."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import polars as pl

from clipmem.base.declared import own_settings
from clipmem.base.errors import require
from clipmem.base.recipes import Recipe
from clipmem.base.registry import Registry
from clipmem.base.sections import Section
from clipmem.data.splits import check_given_sizes, split_table
from clipmem.data.user_tables import read_wrong, roles_of
from clipmem.scoring.design import Design
from clipmem.train.paired import check_alike

Records = Mapping[tuple[str, int], Mapping[str, object]]


class Protocol(ABC):
    """How f and g are obtained.

    Args:
        recipe: The recipe of the study.

    Attributes:
        name: Value of `protocol` in recipes.
        summary: Description in one line.
        Settings: Its table in the recipe, if it has one.
        trains: Whether the study trains its models, or uses existing ones.
        paired: Whether the models of each seed score every pair, so that runs can be compared seed by seed.
        scored: Whether a study gives scores; otherwise it ends with the utility of its models.
        random_members: Whether it is drawn at random which models train on a pair, so that a run can be audited.
        epsilon_attack: The attack that may bound ε: nothing that it knows determines a target's members; "" for none.
        words: Words in reports that differ from those for four-way (see `report/templates/words.toml`).
    """

    name: ClassVar[str] = ""
    summary: ClassVar[str] = ""
    Settings: ClassVar[type[Section] | None] = None
    trains: ClassVar[bool] = True
    paired: ClassVar[bool] = False
    scored: ClassVar[bool] = True
    random_members: ClassVar[bool] = False
    epsilon_attack: ClassVar[str] = ""
    words: ClassVar[Mapping[str, object]] = {}

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe

    @property
    def settings(self) -> Any:
        """Its table in the recipe."""
        return own_settings(self.recipe, self.name)

    @property
    def estimator(self) -> str:
        """Name of the estimator of single scores; empty: they are differences of alignments."""
        return ""

    @property
    def stages(self) -> tuple[str, ...]:
        """The stages after `plan`, in order: of `train`, `embed`, `score`, `estimate`, `evaluate` and `report`."""
        return ("train", "embed", "score", "evaluate", "report")

    @property
    def compares(self) -> bool:
        """Whether its models give differences of alignments."""
        return "score" in self.stages

    @property
    @abstractmethod
    def count(self) -> int:
        """The number of models."""

    @abstractmethod
    def design(self, splits: pl.DataFrame) -> Design:
        """Return the training set of each model and the pairs it is used for."""

    def roles(self, splits: pl.DataFrame) -> pl.DataFrame:
        """Adapt the four-way split table to this protocol; by default unchanged."""
        return splits

    def check_pairs(self, pairs: pl.DataFrame) -> None:
        """Check, before anything is written, that the data have enough pairs."""
        if self.recipe.data.role_column:
            check_given_sizes(self.recipe.split.sizes, roles_of(pairs), at_most=True)
        split, available, needed = self.recipe.split, pairs.height, self.used_pairs(pairs)
        sizes = f"shared {split.shared:,} + candidate {split.candidate:,} + independent {split.independent:,}"
        got = f"{needed:,} pairs ({sizes} + external {split.external:,}), with {available:,} in the data"
        hint = "Write a recipe that fits with `clipmem init FILE --data PATH`, or reduce the sizes, for example "
        hint += "with --set split.external=N."
        require(needed <= available, "[split]", got, f"at most {available:,} in total", hint)

    def check_usable(self, pairs: pl.DataFrame) -> None:
        """Check again after images that do not decode are left out; by default as `check_pairs`."""
        self.check_pairs(pairs)

    def used_pairs(self, pairs: pl.DataFrame) -> int:  # noqa: ARG002
        """Return the number of pairs that the study uses: by default, the sum of the four roles."""
        return sum(self.recipe.split.sizes.values())

    @property
    def trained_pairs(self) -> int:
        """The number of training pairs per model: by default, shared + candidate."""
        return self.recipe.split.shared + self.recipe.split.candidate

    def split(self, pairs: pl.DataFrame, groups: Sequence[str]) -> pl.DataFrame:
        """Return the split table: by default the four-way split, adapted by `roles`; groups are not divided."""
        split, k = self.recipe.split, self.recipe.train.captions
        table = split_table(
            pairs["uid"].to_list(),
            groups,
            split,
            captions={uid: texts[:k] for uid, texts in zip(pairs["uid"], pairs["captions"].to_list(), strict=True)},
            roles=roles_of(pairs) if self.recipe.data.role_column else None,
            mismatched=read_wrong(split.wrong, frozenset(pairs["uid"]), others="leave out") if split.wrong else (),
        )
        return self.roles(table)

    def check(self, design: Design, records: Records) -> None:  # noqa: ARG002
        """Check by the training records (`record.json`, by side and seed) that the models are comparable."""
        check_alike(records)


PROTOCOLS: Registry[Protocol] = Registry("protocol", Protocol)  # pyright: ignore[reportAbstractUsage]
