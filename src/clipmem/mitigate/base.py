"""What a mitigation is: a training hook that a recipe's section describes, by the name of that section.

One file a mitigation, or one for a few that share a formula, registered in `MITIGATIONS`; `hooks_of` makes those that a
recipe sets. What has to be made once for all models (variants of captions and pictures) is made by `prepare`, in the
study's plan stage, and read by each training.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import polars as pl

from clipmem.base.pictures import Geometry
from clipmem.base.recipes import Recipe
from clipmem.base.registry import Registry
from clipmem.store.folder import RunFolder
from clipmem.train.hooks import Hook, Hooks
from clipmem.train.paired import TrainingSet


@dataclass(frozen=True)
class Training:
    """The training that a mitigation is made for.

    Attributes:
        recipe: The recipe of the study.
        plan: Which slot is which pair, and the seed.
        folder: The run folder, of which the plan stage is finished.
        splits: Its split table.
    """

    recipe: Recipe
    plan: TrainingSet
    folder: RunFolder
    splits: pl.DataFrame


@dataclass(frozen=True)
class Preparation:
    """What a mitigation may use to prepare itself, once for all models of a study.

    Attributes:
        recipe: The recipe of the study.
        folder: Where outputs go, below `mitigate/`.
        pairs: The table `pairs`.
        splits: The split table.
        geometry: How pictures become the squares that the models take.
        read: Gives the encoded pictures of references, as `Source.read`.
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
    """A hook that a section of the recipe describes."""

    name: ClassVar[str] = ""

    @classmethod
    def check(cls, recipe: Recipe, pairs: pl.DataFrame) -> None:
        """Check that the pairs of the source have what this mitigation draws from; by default it needs nothing."""

    @classmethod
    def prepare(cls, given: Preparation) -> list[Path]:  # noqa: ARG003
        """Write what all trainings of a study need; return the files. By default nothing."""
        return []

    @classmethod
    def create(cls, training: Training) -> "Mitigation":
        """Make the hook for one training."""
        raise NotImplementedError


MITIGATIONS: Registry[Mitigation] = Registry("mitigation", Mitigation)
_SPLIT_EDITS = {"remove"}  # done before any training: no hook


def captions_in_training(recipe: Recipe) -> int:
    """Return how many captions of each pair training draws from.

    `train.captions` says which captions the study uses, in training and in scores. `mitigate.captions.count` changes
    the training alone: scores of a run with it are taken on the same captions as those of the run without it.
    """
    return recipe.mitigate.captions.count or recipe.train.captions


def hooks_of(training: Training) -> Hooks:
    """Make the hooks of all mitigations that the recipe sets, in the order of its sections."""
    return Hooks(tuple(mitigation.create(training) for mitigation in _mitigations(training.recipe)))


def prepare(given: Preparation) -> list[Path]:
    """Prepare all mitigations that the recipe sets; return the files written."""
    return [file for mitigation in _mitigations(given.recipe) for file in mitigation.prepare(given)]


def check(recipe: Recipe, pairs: pl.DataFrame) -> None:
    """Check the pairs of the source against all mitigations that the recipe sets."""
    for mitigation in _mitigations(recipe):
        mitigation.check(recipe, pairs)


def _mitigations(recipe: Recipe) -> list[type[Mitigation]]:
    return [MITIGATIONS[name] for name in recipe.mitigate.active() if name not in _SPLIT_EDITS]
