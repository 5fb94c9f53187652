"""Tables by uid given by the user."""

from collections import Counter
from collections.abc import Container, Iterable, Sequence
from pathlib import Path

import polars as pl

from clipmem.base.errors import InputError, shorten
from clipmem.base.require import require, require_columns
from clipmem.base.suggest import did_you_mean


def read_table(path: Path, what: str, columns: Sequence[str], *, optional: Sequence[str] = ()) -> pl.DataFrame:
    """Read columns of a Parquet or CSV file; missing `optional` columns are ignored. CSV cells stay strings."""
    where = f"{what}, {path}"
    try:
        is_csv = path.suffix.lower() == ".csv"
        table = pl.read_csv(path, infer_schema=False) if is_csv else None
        there = list(pl.read_parquet_schema(path)) if table is None else table.columns
        absent = next((name for name in columns if name not in there), "")
        require_columns(where, there, columns, did_you_mean(absent, there, kind="column"))
        used = [*columns, *(name for name in optional if name in there)]
        return pl.read_parquet(path, columns=used) if table is None else table.select(used)
    except (OSError, pl.exceptions.PolarsError) as error:
        got = f"an unreadable file ({shorten(str(error))})" if path.exists() else "no such file"
        expected = f"a Parquet or CSV file with the columns {', '.join(columns)}"
        hint = "Check the path: relative paths start at the working directory."
        raise InputError(where, got=got, expected=expected, hint=hint) from error


def known_uids(table: pl.DataFrame, known: Iterable[str], what: str) -> list[str]:
    """Return the uids of a user's table; they must be unique and belong to pairs of the data."""
    uids: list[str | None] = table["uid"].cast(pl.String).to_list()
    there: Container[object] = frozenset(known)
    unknown_uids = [(row, uid) for row, uid in enumerate(uids, start=1) if uid not in there]
    for row, uid in unknown_uids:
        share = f"{len(unknown_uids):,} of {len(uids):,} rows"
        got = f"unknown uid {shorten(uid)} ({share})" if uid else f"no uid ({share})"
        hint = "Take uids from pairs.parquet of a run on the same data."
        raise InputError(f"{what}, row {row}", got=got, expected="uids of the data's pairs", hint=hint)
    [(uid, times)] = Counter(uids).most_common(1) or [("", 0)]
    require(times < 2, what, f"uid {shorten(uid)} in {times} rows", "one row per pair", "Merge its rows.")
    return [str(uid) for uid in uids]
