"""What a mitigation is: an edit of the split, a preparation for all models, a hook of the training, or several of them.

One class in one file says all about it: its settings, what it needs of the data and of a parent run, what it does. It
is registered in `MITIGATIONS`, or by an installed package under the entry-point group `clipmem.mitigations`, by the
name of its section of the recipe, `[mitigate.NAME]`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import polars as pl

from clipmem.base.declared import own_settings
from clipmem.base.images import Geometry
from clipmem.base.mitigations import MitigationSection
from clipmem.base.recipes import Recipe
from clipmem.base.registry import Registry
from clipmem.mitigate.parent import Parent
from clipmem.store.folder import RunFolder
from clipmem.train.hooks import Hook, Hooks
from clipmem.train.paired import TrainingSet


@dataclass(frozen=True)
class Training:
    """The training that a mitigation is made for; the plan stage of the run folder is finished."""

    recipe: Recipe
    plan: TrainingSet
    folder: RunFolder
    splits: pl.DataFrame


@dataclass(frozen=True)
class Preparation:
    """What a mitigation may use to prepare itself, once for all models of a study.

    Outputs go into `folder`, below `mitigate/`; `read` gives the encoded images of references, as `Source.read`.
    """

    recipe: Recipe
    folder: RunFolder
    pairs: pl.DataFrame
    splits: pl.DataFrame
    geometry: Geometry
    read: Callable[[Sequence[str]], Sequence[bytes]]

    def captions(self) -> Mapping[str, list[str]]:
        """Return the captions that each pair of the study is trained with, by uid."""
        texts = dict(zip(self.pairs["uid"], self.pairs["captions"].to_list(), strict=True))
        count = captions_in_training(self.recipe)
        rows = self.splits.select("uid", "captions_from").iter_rows()
        return {uid: texts[source][:count] for uid, source in rows}


class Mitigation(Hook):
    """What a section of the recipe describes: itself the hook of a training; every method's default changes nothing.

    Class attributes:
        name: The section, `[mitigate.NAME]`.
        summary: What it does, in one line.
        Settings: Its section, where its package brings it (a `base.mitigations.MitigationSection`).
    """

    Settings: ClassVar[type[MitigationSection] | None] = None

    name: ClassVar[str] = ""
    summary: ClassVar[str] = ""

    def __init__(self, section: Any, seed: int = 0) -> None:
        self.section, self.seed = section, seed

    @classmethod
    def section_of(cls, recipe: Recipe) -> Any:
        """Return its section of a recipe."""
        return own_settings(recipe.mitigate, cls.name)

    @classmethod
    def check(cls, recipe: Recipe, pairs: pl.DataFrame) -> None:
        """Raise an `InputError` unless the pairs of the source have what it draws from."""

    @classmethod
    def parent(cls, recipe: Recipe) -> Parent | None:  # noqa: ARG003
        """Read the scores of an earlier run that it goes by, where it does."""
        return None

    @classmethod
    def edit(
        cls,
        recipe: Recipe,  # noqa: ARG003
        splits: pl.DataFrame,
        parent: Parent | None,  # noqa: ARG003
        pairs: pl.DataFrame,  # noqa: ARG003
    ) -> tuple[pl.DataFrame, dict[str, pl.DataFrame]]:
        """Change who trains on what; return the split table, and tables that say what was changed, by their names."""
        return splits, {}

    @classmethod
    def captions_of_pair(cls, recipe: Recipe) -> int:  # noqa: ARG003
        """Return how many captions of each pair training draws from; 0 = as many as without it."""
        return 0

    @classmethod
    def prepare(cls, given: Preparation) -> list[Path]:  # noqa: ARG003
        """Write what all trainings of a study need; return the files."""
        return []

    @classmethod
    def hook(cls, training: Training) -> Hook | None:
        """Make the hook for one training; None where training is as it was."""
        return cls(cls.section_of(training.recipe), training.plan.seed)

    def facts(self) -> dict[str, Any]:
        """Return the settings."""
        return self.section.model_dump(mode="json")


MITIGATIONS: Registry[Mitigation] = Registry("mitigation", Mitigation, group="mitigations")


def active(recipe: Recipe) -> list[type[Mitigation]]:
    """Return the mitigations that the recipe sets, in the order of its sections."""
    return [MITIGATIONS[name] for name in recipe.mitigate.active()]


def captions_in_training(recipe: Recipe) -> int:
    """Return how many captions of each pair training draws from.

    `train.captions` says which captions the study uses, in training and in scores. A mitigation changes the training
    alone: scores of a run with it are taken on the same captions as those of the run without it.
    """
    return max((one.captions_of_pair(recipe) for one in active(recipe)), default=0) or recipe.train.captions


def hooks_of(training: Training) -> Hooks:
    """Make the hooks of all mitigations that the recipe sets."""
    made = (mitigation.hook(training) for mitigation in active(training.recipe))
    return Hooks(tuple(hook for hook in made if hook is not None))


def prepare(given: Preparation) -> list[Path]:
    """Prepare all mitigations that the recipe sets; return the files written."""
    return [file for mitigation in active(given.recipe) for file in mitigation.prepare(given)]


def check(recipe: Recipe, pairs: pl.DataFrame) -> None:
    """Check the pairs of the source against all mitigations that the recipe sets."""
    for mitigation in active(recipe):
        mitigation.check(recipe, pairs)


def parents_of(recipe: Recipe) -> dict[str, Parent]:
    """Read the parents that the recipe's mitigations name, by the name of the section."""
    found = {mitigation.name: mitigation.parent(recipe) for mitigation in active(recipe)}
    return {name: parent for name, parent in found.items() if parent is not None}


def edit(
    recipe: Recipe, splits: pl.DataFrame, parents: Mapping[str, Parent], pairs: pl.DataFrame
) -> tuple[pl.DataFrame, dict[str, pl.DataFrame]]:
    """Let all mitigations that the recipe sets edit the split; return it and the tables that they made."""
    tables: dict[str, pl.DataFrame] = {}
    for mitigation in active(recipe):
        splits, more = mitigation.edit(recipe, splits, parents.get(mitigation.name), pairs)
        tables |= more
    return splits, tables
