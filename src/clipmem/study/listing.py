"""`clipmem data ids`: lists of pairs by score, from a finished run or any table with uids and a column of numbers."""

from pathlib import Path

import polars as pl

from clipmem.base.errors import InputError, shorten
from clipmem.base.suggest import did_you_mean
from clipmem.data.id_lists import write_ids
from clipmem.store.folder import RunFolder
from clipmem.study.loaded import check_role


def select_ids(
    scores: Path,
    *,
    top: int | None = None,
    bottom: int | None = None,
    by: str = "clipmem",
    role: str = "",
    rest: bool = False,
) -> pl.DataFrame:
    """Choose pairs by their score.

    Args:
        scores: A run folder, or a Parquet file with the columns uid and `by`.
        top: So many with the largest scores.
        bottom: So many with the smallest; with neither, all pairs that have a score.
        by: The column that orders them.
        role: Only pairs of this role are ordered.
        rest: Return all other pairs instead: the data without those.

    Returns:
        Columns uid, `by`, and role and captions where they are known; the largest score first (with `bottom`, the
        smallest), equal ones by uid. Of `rest`, in the order of the uids.

    Raises:
        InputError: There is no such table, column or role, or fewer pairs than asked for.
    """
    if top is not None and bottom is not None:
        raise InputError("--top and --bottom", got="both", expected="one of them", hint="Make two lists.")
    table = _table(scores, by)
    known = _with_captions(scores, table)
    if role:
        known = _of_role(known, role, scores)
    falling = bottom is None
    ranked = known.filter(pl.col(by).is_not_null() & pl.col(by).is_not_nan()).sort(
        by, "uid", descending=[falling, False]
    )
    asked = top if top is not None else bottom
    if asked is not None and asked > ranked.height:
        raise InputError(
            f"--{'top' if falling else 'bottom'} {asked:,}", got=f"{ranked.height:,} pairs with a score",
            expected=f"at most {ranked.height:,}", hint="Ask for fewer.",
        )  # fmt: skip
    chosen = ranked if asked is None else ranked.head(asked)
    if not rest:
        return chosen
    everything = _with_captions(scores, table)
    return everything.filter(~pl.col("uid").is_in(chosen["uid"].to_list())).sort("uid")


def write_list(scores: Path, out: Path, **choice: object) -> int:
    """Choose pairs (see `select_ids`) and write them to a file (see `write_ids`); return how many."""
    chosen = select_ids(scores, **choice)  # pyright: ignore[reportArgumentType]
    write_ids(out, chosen)
    return chosen.height


def _table(scores: Path, by: str) -> pl.DataFrame:
    if scores.is_dir():
        RunFolder(scores).recipe()  # names what is missing where it is no run folder
        table, what = RunFolder(scores).read("scores"), f"the scores of {scores}"
    else:
        try:
            table, what = pl.read_parquet(scores), f"{scores}"
        except (OSError, pl.exceptions.PolarsError) as error:
            raise InputError(
                f"{scores}",
                got="no such file" if not scores.exists() else f"not readable as Parquet ({shorten(str(error))})",
                expected="a run folder, or a Parquet file with uids and scores",
                hint="Check the path.",
            ) from error
    for column in ("uid", by):
        if column not in table.columns:
            raise InputError(
                what,
                got=f"no column {shorten(column)}",
                expected="uids, and a column of numbers",
                hint=did_you_mean(column, table.columns, kind="column"),
            )
    if not table.schema[by].is_numeric():
        raise InputError(
            what, got=f"column {by!r} of {table.schema[by]}", expected="numbers", hint="Name another one with --by."
        )
    kept = [name for name in ("uid", "role", by) if name in table.columns]
    return table.select(list(dict.fromkeys(kept))).with_columns(
        pl.col("uid").cast(pl.String), pl.col(by).cast(pl.Float64)
    )


def _with_captions(scores: Path, table: pl.DataFrame) -> pl.DataFrame:
    """Add the captions, where a run folder has them."""
    if not scores.is_dir():
        return table
    pairs = RunFolder(scores).read("pairs").select("uid", "captions")
    return table.join(pairs, on="uid", how="left", maintain_order="left")


def _of_role(table: pl.DataFrame, role: str, scores: Path) -> pl.DataFrame:
    if "role" not in table.columns:
        raise InputError(
            f"--role {shorten(role)}",
            got=f"no column 'role' in {scores}",
            expected="a table that has one",
            hint="Omit --role.",
        )
    check_role(role, table["role"], "--role")
    return table.filter(pl.col("role") == role)
