"""Removal: train without the n highest-scoring pairs of f.

Removed pairs are neither trained on nor scored, and are listed in `removed.parquet` with their rank and score. To keep
f and g comparable (the same number of pairs, the same slots), a removed candidate takes with it the independent pair of
the same index when both roles are sorted by uid, which does not depend on content. A removed shared pair leaves both
models. External pairs stay, so the run and its parent have the same bank.

When not to trust it: under the four-way protocol shared pairs have a CLIPMem of about 0, because both models saw them,
so the highest-scoring pairs are nearly all candidates. To remove from the whole training set, score it with the
subsample protocol first; to compare ways of choosing, remove from candidates only in each (`role`).
"""

from pathlib import Path

import numpy as np
import polars as pl

from clipmem.base.errors import require
from clipmem.base.mitigations import RemoveSection
from clipmem.base.random import generator
from clipmem.base.recipes import Recipe
from clipmem.mitigate.base import MITIGATIONS, By, Edited, Mitigation, Parent, Training, read_parent

TABLE = "removed"
_LEFT = 2


def removal_list(scores: str | Path, count: int, *, by: By = "clipmem", column: str = "score") -> list[str]:
    """Return the uids of the `count` highest-scoring training pairs of f, highest first, for your own training loop.

    Args:
        scores: A run folder or its `scores.parquet` (without `role`, all its pairs count); with `by = "file"` a table
            with uid and the column of scores, such as suspects.parquet; with `by = "marks"` a marks.jsonl.
        count: Number of pairs, 1 or more.
        by: The score (see `clipmem.mitigate.base.read_parent`).
        column: Column of scores of `by = "file"`, for example one detector's.

    Raises:
        InputError: The scores are not readable, or there are fewer pairs.

    Example:
        >>> removal_list("runs/demo", 50)  # doctest: +SKIP
    """
    pool = read_parent(str(scores), by, "removal_list", column).table
    if by not in {"file", "marks"} and "role" in pool.columns:
        pool = pool.filter(pl.col("role").is_in(["shared", "candidate"]))
    _check_count(count, pool.height, "removal_list count")
    return _worst(pool, count)["uid"].to_list()


def take_out(splits: pl.DataFrame, section: RemoveSection, parent: Parent | None) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Remove pairs from a split; return the split and the table `removed`."""
    roles = ["shared", "candidate"] if section.role == "trained" else ["candidate"]
    mine = splits.filter(pl.col("role").is_in(roles)).select("uid", "role", "planted")
    if parent is None:
        order = generator(section.seed, "remove").permutation(mine.height).astype(np.float64)
        first = mine.height * pl.col("planted") if section.by == "planted" else 0
        pool = mine.sort("uid").with_columns(removal_score=first - pl.Series(order))
    else:
        pool = mine.join(parent.table.select("uid", "removal_score"), on="uid")
    _check_count(section.count, pool.height, "[mitigate.remove] count")
    gone = _worst(pool, section.count).select(
        "uid", "role", "removal_score", rank=pl.int_range(1, section.count + 1, dtype=pl.Int64), went_with=pl.lit("")
    )
    removed = pl.concat([gone, _mirrors(splits, gone)], how="vertical")
    rest = splits.filter(~pl.col("uid").is_in(removed["uid"].implode()))
    counts = {role: int((rest["role"] == role).sum()) for role in splits["role"].unique().sort()}
    for role, n in counts.items():
        got, expected = f"{section.count}, which leaves {n} {role} pairs", f"at least {_LEFT} of each role to stay"
        require(n >= _LEFT, "[mitigate.remove] count", got, expected, "Remove fewer.")
    return rest, removed


@MITIGATIONS.register("remove")
class Remove(Mitigation):
    """`[mitigate.remove]`, which edits the split only."""

    summary = "Remove the highest-scoring pairs before training."

    @classmethod
    def parent(cls, recipe: Recipe) -> Parent | None:
        section = cls.section_of(recipe)
        return read_parent(section.scores, section.by, "[mitigate.remove]", section.column) if section.scored else None

    @classmethod
    def edit(cls, recipe: Recipe, splits: pl.DataFrame, parent: Parent | None, pairs: pl.DataFrame) -> Edited:
        del pairs
        rest, removed = take_out(splits, cls.section_of(recipe), parent)
        return rest, {TABLE: removed}

    @classmethod
    def hook(cls, training: Training) -> None:
        """Return no hook."""


def _worst(pool: pl.DataFrame, count: int) -> pl.DataFrame:
    return pool.sort("removal_score", "uid", descending=[True, False]).head(count)


def _mirrors(splits: pl.DataFrame, gone: pl.DataFrame) -> pl.DataFrame:
    """Return the independent pairs with the same index in their role as the removed candidates."""
    candidates, independent = (splits.filter(role=role)["uid"].sort() for role in ("candidate", "independent"))
    if len(candidates) != len(independent):
        return gone.clear()
    mirrors = gone.join(pl.DataFrame({"uid": candidates, "mirror": independent}), on="uid", maintain_order="left")
    unranked = {name: pl.lit(None, gone.schema[name]) for name in ("removal_score", "rank")}
    return mirrors.select(pl.col("mirror").alias("uid"), role=pl.lit("independent"), **unranked, went_with="uid")


def _check_count(count: int, available: int, subject: str) -> None:
    got = f"{count} of {available} pairs that f trains on and that have a score"
    require(1 <= count <= available, subject, got, f"1 to {available}", "Remove fewer, or score more pairs.")
