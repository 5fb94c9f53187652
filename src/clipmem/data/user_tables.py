"""Tables by uid that a setting names, read and checked before anything is computed: objects, text embeddings."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import polars as pl

from clipmem.base.errors import InputError, shorten
from clipmem.base.suggest import did_you_mean


def read_columns(path: Path, what: str, columns: Sequence[str]) -> pl.DataFrame:
    """Read these columns of a Parquet file that a setting names."""
    try:
        names = pl.read_parquet_schema(path)
        for column in columns:
            if column not in names:
                raise InputError(
                    f"{what}",
                    got=f"no column {column!r} in {path}",
                    expected=f"the columns {list(columns)}",
                    hint=did_you_mean(column, names, kind="column"),
                )
        return pl.read_parquet(path, columns=list(columns))
    except (pl.exceptions.PolarsError, OSError) as error:
        found = f"not readable as Parquet ({shorten(str(error))})" if path.is_file() else "no such file"
        raise InputError(
            f"{what}",
            got=f"{str(path)!r}: {found}",
            expected=f"a Parquet file with the columns {list(columns)}",
            hint="Check the path.",
        ) from error


def known_uids(table: pl.DataFrame, known: Sequence[str], what: str) -> list[str]:
    """Return the uids of a user's table, each once and each of a pair of the data."""
    uids, there = table["uid"].cast(pl.String).to_list(), set(known)
    strangers = [uid for uid in uids if uid not in there]
    if strangers:
        raise InputError(
            what,
            got=f"uid {shorten(strangers[0])} ({len(strangers):,} of {len(uids):,} rows), which no pair has",
            expected="uids of the data's pairs",
            hint="Take them from pairs.parquet of a run folder of these data.",
        )
    twice = [uid for uid, times in Counter(uids).items() if times > 1]
    if twice:
        raise InputError(
            what, got=f"uid {shorten(twice[0])} in {Counter(uids)[twice[0]]} rows", expected="one row a pair",
            hint="Join its rows into one.",
        )  # fmt: skip
    return uids
