"""A roles file: which pair has which role, said by the user instead of drawn; for example another run's splits.

Nobody checks whether it is true: a pair called external that a model did train on spoils the bank of every pair.
"""

from pathlib import Path
from typing import Literal

import polars as pl

from clipmem.base.errors import InputError, shorten
from clipmem.base.suggest import did_you_mean
from clipmem.data.splits import ROLES

_TRUTH = {"true": True, "1": True, "false": False, "0": False, "": False}


def read_roles(path: Path, uids: frozenset[str], *, others: Literal["refuse", "leave out"] = "refuse") -> pl.DataFrame:
    """Read the roles of pairs from a Parquet or CSV file."""
    table = _read(path)
    where = f"[given] roles, {path}"
    missing = [name for name in ("uid", "role") if name not in table.columns]
    if missing:
        raise InputError(
            where,
            got=f"columns {table.columns}",
            expected=f"also {missing}",
            hint="One row a pair: its uid, as in pairs.parquet of a run, and its role.",
        )
    if others == "leave out":
        table = table.filter(pl.col("uid").is_in(list(uids)))
    _check_uids(table["uid"], uids, where)
    for row, role in enumerate(table["role"], start=1):
        if role not in ROLES:
            raise InputError(
                f"{where}, row {row}",
                got=f"role {role!r}" if role else "no role",
                expected=f"one of {', '.join(ROLES)}",
                hint=did_you_mean(role or "", ROLES, kind="role"),
            )
    planted = [_truth(value, row, where) for row, value in enumerate(_optional(table, "planted"), start=1)]
    source = [
        own if given in (None, "") else given
        for own, given in zip(table["uid"], _optional(table, "captions_from"), strict=True)
    ]
    unknown = [uid for uid in source if uid not in uids]
    made = table.select("uid", "role").with_columns(planted=pl.Series(planted), captions_from=pl.Series(source))
    if others == "leave out":
        made = made.filter(pl.col("captions_from").is_in(list(uids)))
    elif unknown:
        raise InputError(
            where,
            got=f"captions_from {shorten(unknown[0])}",
            expected="uids of the data",
            hint="Name the pair whose captions it has, or leave it empty.",
        )
    counts = {role: int((made["role"] == role).sum()) for role in ROLES}
    if counts["external"] < 2 or not counts["candidate"]:
        raise InputError(
            where,
            got=", ".join(f"{role} {count}" for role, count in counts.items()),
            expected="at least 2 external pairs, which no model trained on, and 1 candidate",
            hint="The external pairs are the bank that every score is measured against.",
        )
    return made.sort("uid")


def _read(path: Path) -> pl.DataFrame:
    try:
        if path.suffix.lower() == ".csv":
            # as text: a uid of digits alone is no number
            return pl.read_csv(path, infer_schema=False)
        return pl.read_parquet(path)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise InputError(
            f"[given] roles, {path}",
            got="no such file" if not path.exists() else f"a file that does not read ({shorten(str(error))})",
            expected="a Parquet or CSV file with the columns uid and role",
            hint="Check the path: a relative one starts at the working directory.",
        ) from error


def _optional(table: pl.DataFrame, name: str) -> list[object]:
    return table[name].to_list() if name in table.columns else [None] * table.height


def _check_uids(column: pl.Series, uids: frozenset[str], where: str) -> None:
    """Refuse a uid that is missing, unknown or repeated."""
    seen: set[object] = set()
    for row, uid in enumerate(column, start=1):
        if uid in uids and uid not in seen:
            seen.add(uid)
            continue
        got = "no uid" if uid in (None, "") else f"uid {shorten(uid)}{' again' if uid in seen else ''}"
        raise InputError(
            f"{where}, row {row}",
            got=got,
            expected="the uid of a pair of the data, each once",
            hint="A uid is a hash of picture and captions: take it from pairs.parquet of a run on the same data.",
        )


def _truth(value: object, row: int, where: str) -> bool:
    if value is None or isinstance(value, bool):
        return bool(value)
    text = str(value).casefold()
    if text not in _TRUTH:
        raise InputError(
            f"{where}, row {row}", got=f"planted {shorten(value)}", expected="true or false", hint="Mend that row."
        )
    return _TRUTH[text]
