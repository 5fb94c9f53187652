"""The interface of mitigations: edits of the split, preparation for all models, and hooks of the training.

A mitigation is one class in one file. It is registered under the name of its section, `[mitigate.NAME]`, in
`MITIGATIONS` or by the entry-point group `clipmem.mitigations` of an installed package.
"""
# ruff: noqa: ARG003  (by default a mitigation changes nothing)

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import polars as pl

from clipmem.base.declared import own_settings
from clipmem.base.folder import RunFolder
from clipmem.base.mitigations import MitigationSection
from clipmem.base.recipes import Recipe
from clipmem.base.registry import Registry
from clipmem.data.decoding import Geometry
from clipmem.mitigate.parent import Parent
from clipmem.train.hooks import Hook, Hooks
from clipmem.train.paired import TrainingSet


@dataclass(frozen=True)
class Training:
    """The training to create a hook for; the plan stage of the run folder is finished."""

    recipe: Recipe
    plan: TrainingSet
    folder: RunFolder
    splits: pl.DataFrame


@dataclass(frozen=True)
class Preparation:
    """Inputs for the preparation of a mitigation, once for all models of a study.

    Outputs go below `mitigate/` in `folder`; `read` returns the encoded images of references, like `Source.read`.
    """

    recipe: Recipe
    folder: RunFolder
    pairs: pl.DataFrame
    splits: pl.DataFrame
    geometry: Geometry
    read: Callable[[Sequence[str]], Sequence[bytes]]

    def captions(self) -> Mapping[str, list[str]]:
        """Return the training captions of each pair, by uid."""
        texts = dict(zip(self.pairs["uid"], self.pairs["captions"].to_list(), strict=True))
        count = captions_in_training(self.recipe)
        rows = self.splits.select("uid", "captions_from").iter_rows()
        return {uid: texts[source][:count] for uid, source in rows}


class Mitigation(Hook):
    """A mitigation, which is also the hook of a training; every method changes nothing by default.

    Class attributes:
        name: Its section, `[mitigate.NAME]`.
        summary: What it does, in one line.
        Settings: Its section, if its package defines it (a `base.mitigations.MitigationSection`).
        parent_until: The last stage that reads its parent.
    """

    Settings: ClassVar[type[MitigationSection] | None] = None

    name: ClassVar[str] = ""
    summary: ClassVar[str] = ""
    parent_until: ClassVar[str] = "plan"

    def __init__(self, section: Any, seed: int = 0) -> None:
        self.section, self.seed = section, seed

    @classmethod
    def section_of(cls, recipe: Recipe) -> Any:
        """Return its section of a recipe."""
        return own_settings(recipe.mitigate, cls.name)

    @classmethod
    def check(cls, recipe: Recipe, pairs: pl.DataFrame) -> None:
        """Raise an `InputError` unless the pairs have the data that it needs."""

    @classmethod
    def parent(cls, recipe: Recipe) -> Parent | None:
        """Read the earlier run that it uses, if any."""
        return None

    @classmethod
    def models(cls, recipe: Recipe, side: str, seed: int) -> Path | None:
        """Return the folder of a trained model that `begin` and `after` change; None to train."""
        return None

    @classmethod
    def edit(
        cls, recipe: Recipe, splits: pl.DataFrame, parent: Parent | None, pairs: pl.DataFrame
    ) -> tuple[pl.DataFrame, dict[str, pl.DataFrame]]:
        """Change the split; return it and tables of the changes, by name."""
        return splits, {}

    @classmethod
    def captions_of_pair(cls, recipe: Recipe) -> int:
        """Return the number of captions per pair that training draws from; 0 = no change."""
        return 0

    @classmethod
    def prepare(cls, preparation: Preparation) -> list[Path]:
        """Write the files that the trainings of a study need, and return their paths."""
        return []

    @classmethod
    def hook(cls, training: Training) -> Hook | None:
        """Create the hook of a training; None if training does not change."""
        return cls(cls.section_of(training.recipe), training.plan.seed)

    def facts(self) -> dict[str, object]:
        """Return the settings for `record.json`."""
        return self.section.model_dump(mode="json")


MITIGATIONS: Registry[Mitigation] = Registry("mitigation", Mitigation, group="mitigations")


def active(recipe: Recipe) -> list[type[Mitigation]]:
    """Return the mitigations of a recipe, in the order of its sections."""
    return [MITIGATIONS[name] for name in recipe.mitigate.active()]


def captions_in_training(recipe: Recipe) -> int:
    """Return the number of captions per pair that training draws from.

    `train.captions` applies to training and scores. A mitigation changes only the training, so that scores with and
    without it are for the same captions.
    """
    counts = (mitigation.captions_of_pair(recipe) for mitigation in active(recipe))
    return max(counts, default=0) or recipe.train.captions


def hooks_of(training: Training) -> Hooks:
    """Create the hooks of all mitigations of the recipe."""
    hooks = (mitigation.hook(training) for mitigation in active(training.recipe))
    return Hooks(tuple(hook for hook in hooks if hook is not None))


def ready_model(recipe: Recipe, side: str, seed: int) -> Path | None:
    """Return the folder of the trained model that a mitigation of the recipe takes instead of training, if any."""
    return next(filter(None, (mitigation.models(recipe, side, seed) for mitigation in active(recipe))), None)


def prepare(preparation: Preparation) -> list[Path]:
    """Prepare all mitigations of the recipe; return the files written."""
    return [file for mitigation in active(preparation.recipe) for file in mitigation.prepare(preparation)]


def check(recipe: Recipe, pairs: pl.DataFrame) -> None:
    """Check the pairs for all mitigations of the recipe."""
    for mitigation in active(recipe):
        mitigation.check(recipe, pairs)


def parents_of(recipe: Recipe, done: Callable[[str], bool] = lambda _: False) -> dict[str, Parent]:
    """Read the parents of the recipe's mitigations that the stages which are not done need, by section name."""
    needing = [mitigation for mitigation in active(recipe) if not done(mitigation.parent_until)]
    parents = {mitigation.name: mitigation.parent(recipe) for mitigation in needing}
    return {name: parent for name, parent in parents.items() if parent is not None}


def edit(
    recipe: Recipe, splits: pl.DataFrame, parents: Mapping[str, Parent], pairs: pl.DataFrame
) -> tuple[pl.DataFrame, dict[str, pl.DataFrame]]:
    """Apply the split edits of all mitigations of the recipe; return the split and tables of the changes."""
    tables: dict[str, pl.DataFrame] = {}
    for mitigation in active(recipe):
        splits, more = mitigation.edit(recipe, splits, parents.get(mitigation.name), pairs)
        tables |= more
    return splits, tables
