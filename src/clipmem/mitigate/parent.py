"""The earlier run that a mitigation uses: scores, by which pairs are removed or regrouped, or models."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import polars as pl

from clipmem.base import manifest
from clipmem.base.errors import require, shorten
from clipmem.base.folder import RunFolder
from clipmem.base.hashing import file_sha256
from clipmem.base.marks import marks_file, read_marks
from clipmem.data.user_tables import read_table

By = Literal["clipmem", "similarity", "g-alignment", "file", "marks"]


@dataclass(frozen=True)
class Parent:
    """A parent run.

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
