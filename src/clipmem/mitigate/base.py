"""The interface of mitigations: edits of the split, preparation for all models, and hooks of the training.

An earlier run can give scores, by which pairs are removed or regrouped, or models (`Parent`).

A mitigation is one class in one file. It is registered under the name of its section, `[mitigate.NAME]`, in
`MITIGATIONS` or by the entry-point group `clipmem.mitigations` of an installed package.
"""
# ruff: noqa: ARG003  (by default a mitigation changes nothing)

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import polars as pl

from clipmem.base import manifest
from clipmem.base.declared import own_settings
from clipmem.base.errors import require, shorten
from clipmem.base.folder import RunFolder
from clipmem.base.hashing import file_sha256
from clipmem.base.marks import marks_file, read_marks
from clipmem.base.mitigations import MitigationSection
from clipmem.base.recipes import Recipe
from clipmem.base.registry import Registry
from clipmem.data.decoding import Geometry
from clipmem.data.user_tables import read_table
from clipmem.train.hooks import Hook, Hooks
from clipmem.train.paired import TrainingSet

By = Literal["clipmem", "similarity", "g-alignment", "file", "marks"]
Edited = tuple[pl.DataFrame, dict[str, pl.DataFrame]]  # a split, and tables of its changes by name


@dataclass(frozen=True)
class Parent:
    """The earlier run that a mitigation uses.

    Attributes:
        path: Its folder or file.
        table: Its pairs, with the column `removal_score` if it gives scores.
        described: Its entry in the manifest.
        gives: What is used of it, whose hash `described` has.
    """

    path: str
    table: pl.DataFrame
    described: dict[str, object]
    gives: Literal["scores", "models"] = "scores"


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
    def edit(cls, recipe: Recipe, splits: pl.DataFrame, parent: Parent | None, pairs: pl.DataFrame) -> Edited:
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


def edit(recipe: Recipe, splits: pl.DataFrame, parents: Mapping[str, Parent], pairs: pl.DataFrame) -> Edited:
    """Apply the split edits of all mitigations of the recipe; return the split and tables of the changes."""
    tables: dict[str, pl.DataFrame] = {}
    for mitigation in active(recipe):
        splits, more = mitigation.edit(recipe, splits, parents.get(mitigation.name), pairs)
        tables |= more
    return splits, tables


def read_parent(path: str, by: By, setting: str, column: str = "score") -> Parent:
    """Read the scores of a parent run.

    `removal_score` is, in terms of the columns of `scores.parquet` (means over seeds; see `clipmem.base.tables`):

        clipmem      clipmem
        similarity   - f_positive: low similarity under the models that trained on the pair
        g-alignment  - (g_positive - w (g_image_bank + g_text_bank)): low alignment under the models that did not see
                     the candidates; w = `score.weight` of the parent (1 for a table)
        file         the column `column` of a table, such as suspects.parquet of `clipmem curate`
        marks        1 for pairs that people marked wrong, in a run folder's marks.jsonl; others have none
    """
    where, setting = Path(path), f"{setting} scores"
    file, weight, described = where, 1.0, dict[str, object]()
    if where.is_dir():
        folder = RunFolder(where)
        file, recipe = folder.table_path("scores"), folder.recipe()
        file = marks_file(where) if by == "marks" else file
        weight, record = recipe.score.weight, manifest.read(folder)
        described = {key: record[key] for key in ("recipe_sha256", "data_sha256", "clipmem")}
    by_column = {
        "clipmem": pl.col("clipmem"),
        "similarity": -pl.col("f_positive"),
        "g-alignment": -pl.col("g_positive") + weight * (pl.col("g_image_bank") + pl.col("g_text_bank")),
        "marks": pl.col("mark"),
    }
    removal_score = by_column.get(by, pl.col(column))
    columns = removal_score.meta.root_names() or [column]  # polars reads some names as patterns
    if by == "marks":
        require(file.is_file(), f"{setting}, {file}", "no such file", "a marks.jsonl", "Mark pairs in clipmem view.")
        uids = [uid for uid, mark in read_marks(file).items() if mark.mark == "wrong"]
        scores = pl.DataFrame({"uid": pl.Series(uids, dtype=pl.String)}).with_columns(removal_score=pl.lit(1.0))
    else:
        table = read_table(file, setting, ("uid", *columns), optional=("role",))
        # CSV columns are read as text
        numbers = table.with_columns(pl.col(columns).cast(pl.Float64, strict=False))
        scores = numbers.select("uid", pl.col("^role$"), removal_score=removal_score).drop_nulls()
        scores = scores.filter(pl.col("removal_score").is_finite())
    subject = f"{setting}, {file}"
    require(not scores.is_empty(), subject, f"no value of {columns}", "scores", "Choose another file.")
    twice = scores.filter(pl.col("uid").is_duplicated())["uid"].head(1)
    got = f"uid {', '.join(map(shorten, twice))} more than once"
    require(twice.is_empty(), subject, got, "one row per pair", "Merge its rows into one.")
    return Parent(path, scores, {"path": path, "scores_sha256": file_sha256(file), **described})


def check_known(parent: Parent, uids: frozenset[str], setting: str) -> None:
    """Refuse a parent with unknown pairs."""
    unknown_uids = [uid for uid in parent.table["uid"] if uid not in uids]
    among = ", ".join(map(shorten, unknown_uids[:1]))
    got = f"{len(unknown_uids):,} pairs that are not in the data, such as {among}"
    hint = "Use the data of that run: a uid is a hash of image and captions."
    require(not unknown_uids, f"{setting} {parent.gives} of {parent.path!r}", got, "a run on the same data", hint)
