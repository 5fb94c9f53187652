"""What an earlier run measured: the scores by which pairs are removed or put together, read and checked.

A parent is a run folder (or its `scores.parquet`, or a table of the user's own). Its scores speak of the pairs that it
was made with: uids that the data do not have are refused, for they mean another data set.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import polars as pl

from clipmem.base.errors import InputError, shorten
from clipmem.base.recipes import Recipe
from clipmem.store import manifest
from clipmem.store.folder import RunFolder
from clipmem.store.hashing import file_sha256

By = Literal["clipmem", "similarity", "g-alignment", "file"]
COLUMNS: dict[str, list[str]] = {
    "clipmem": ["clipmem"],
    "similarity": ["f_positive"],
    "g-alignment": ["g_positive", "g_image_bank", "g_text_bank"],
    "file": ["score"],
}


@dataclass(frozen=True)
class Parent:
    """A parent's scores."""

    path: str
    table: pl.DataFrame
    described: dict[str, Any]

    def values(self) -> dict[str, float]:
        """Return the badness by uid."""
        return dict(zip(self.table["uid"], self.table["badness"], strict=True))


def read_parent(path: str, by: By, setting: str) -> Parent:
    """Read the scores of a parent run.

    Badness is, with the columns of `scores.parquet` (means over seeds; see `clipmem.store.tables`):

        clipmem      the score itself
        similarity   - f_positive: the pair's own similarity under the models that trained on it, lowest first
        g-alignment  - (g_positive - w (g_image_bank + g_text_bank)), w = `score.weight` of the parent (1 where only a
                     table is given): alignment under the models that did not see the candidates, lowest first
        file         the column `score`, highest first
    """
    where = Path(path)
    file, weight, described = where, 1.0, dict[str, Any]()
    if where.is_dir():
        folder = RunFolder(where)
        file, recipe = folder.table_path("scores"), folder.recipe()
        weight, known = recipe.score.weight, manifest.read(folder)
        described = {key: known[key] for key in ("recipe_sha256", "data_sha256", "clipmem")}
    table = _read(file, f"{setting} scores")
    missing = [name for name in ("uid", *COLUMNS[by]) if name not in table.columns]
    if missing:
        raise InputError(
            f"{setting} scores, {file}",
            got=f"columns {table.columns}",
            expected=f"also {missing}",
            hint=f"by = {by!r} needs them.",
        )
    # a CSV was read as text
    numbers = table.with_columns(pl.col(COLUMNS[by]).cast(pl.Float64, strict=False))
    found = (
        numbers.select("uid", *_role(table), badness=_badness(by, weight))
        .drop_nulls()
        .filter(pl.col("badness").is_finite())
    )
    if found.is_empty():
        raise InputError(
            f"{setting} scores, {file}",
            got=f"no value of {COLUMNS[by]}",
            expected="scores",
            hint="Choose another file.",
        )
    twice = found.filter(pl.col("uid").is_duplicated())["uid"]
    if len(twice):
        raise InputError(
            f"{setting} scores, {file}",
            got=f"uid {shorten(twice[0])} more than once",
            expected="one row a pair",
            hint="Join its rows into one.",
        )
    return Parent(path, found, {"path": path, "scores_sha256": file_sha256(file), **described})


def _role(table: pl.DataFrame) -> list[str]:
    return ["role"] if "role" in table.columns else []


def _badness(by: By, weight: float) -> pl.Expr:
    match by:
        case "clipmem":
            return pl.col("clipmem")
        case "similarity":
            return -pl.col("f_positive")
        case "g-alignment":
            return weight * (pl.col("g_image_bank") + pl.col("g_text_bank")) - pl.col("g_positive")
        case "file":
            return pl.col("score")


def _read(file: Path, what: str) -> pl.DataFrame:
    try:
        # as text: a uid of digits alone is no number
        return pl.read_csv(file, infer_schema=False) if file.suffix.lower() == ".csv" else pl.read_parquet(file)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise InputError(
            f"{what} = {str(file)!r}",
            got="no such file" if not file.exists() else f"a file that does not read ({shorten(str(error))})",
            expected="a run folder, or a Parquet or CSV file",
            hint="Check the path: a relative one starts at the working directory.",
        ) from error


def check_known(parent: Parent, uids: frozenset[str], setting: str) -> None:
    """Refuse a parent that was made with other pairs."""
    strangers = [uid for uid in parent.table["uid"] if uid not in uids]
    if strangers:
        raise InputError(
            f"{setting} scores = {parent.path!r}",
            got=f"scores of {len(strangers):,} pairs that the data do not have, such as {shorten(strangers[0])}",
            expected="a run on the same data",
            hint="A uid is a hash of picture and captions: the data, or the captions in them, are others.",
        )


def parents_of(recipe: Recipe) -> dict[str, Parent]:
    """Read the parents that a recipe's active mitigations name, by the name of the section."""
    found: dict[str, Parent] = {}
    section = recipe.mitigate
    if section.remove.active and section.remove.by != "random":
        found["remove"] = read_parent(section.remove.scores, section.remove.by, "[mitigate.remove]")
    if section.regroup.active:
        found["regroup"] = read_parent(section.regroup.scores, "clipmem", "[mitigate.regroup]")
    return found
