"""Roles and known wrong captions given by the user: a roles file, such as the splits of another run, or a column.

When not to trust it: clipmem cannot verify the roles. An external pair that a model trained on biases every score.
"""

from pathlib import Path
from typing import Literal

import polars as pl

from clipmem.base.errors import shorten
from clipmem.base.paths import as_read_error
from clipmem.base.require import require, require_one_of
from clipmem.data.splits import ROLES
from clipmem.data.user_tables import known_uids, read_table

_TRUTH = {"true": True, "1": True, "false": False, "0": False, "": False}


def read_roles(path: Path, uids: frozenset[str], *, others: Literal["refuse", "leave out"] = "refuse") -> pl.DataFrame:
    """Read roles from a Parquet or CSV file; pairs without a row are not used.

    Columns: uid and role; optionally `planted` (whether its caption is known to be wrong) and `captions_from` (the uid
    of the pair whose captions it has).

    Args:
        path: The file.
        uids: The pairs of the data.
        others: Treatment of rows whose uid, or `captions_from`, is not in `uids` (pairs whose images do not decode are
            left out after the file is checked).

    Returns:
        Columns uid, role, planted, captions_from, sorted by uid.
    """
    what, known = f"[given] roles, {path}", list(uids)
    table = read_table(path, "[given] roles", ("uid", "role"), optional=("planted", "captions_from"))
    if others == "leave out":
        table = table.filter(pl.col("uid").is_in(known))
    known_uids(table, uids, what)
    for row, role in enumerate(table["role"], start=1):
        require_one_of(f"{what}, row {row}", role, ROLES)
    planted = [_truth(value, f"{what}, row {row}") for row, value in enumerate(_optional(table, "planted"), start=1)]
    rows = zip(table["uid"], _optional(table, "captions_from"), strict=True)
    source = [own if given in (None, "") else given for own, given in rows]
    made = table.select("uid", "role").with_columns(planted=pl.Series(planted), captions_from=pl.Series(source))
    if others == "leave out":
        made = made.filter(pl.col("captions_from").is_in(known))
    unknown_uids = made.filter(~pl.col("captions_from").is_in(known))["captions_from"]
    got = f"captions_from {', '.join(map(shorten, unknown_uids.head(1)))}"
    hint = "Set it to the pair whose captions it has, or leave it empty."
    require(unknown_uids.is_empty(), what, got, "uids of the data", hint)
    counts = {role: int((made["role"] == role).sum()) for role in ROLES}
    got = ", ".join(f"{role} {count}" for role, count in counts.items())
    expected = "at least 2 external pairs, which no model trained on, and 1 candidate"
    hint = "Add external pairs: they are the bank of every score."
    require(counts["external"] >= 2 and counts["candidate"], what, got, expected, hint)
    return made.sort("uid")


def roles_of(pairs: pl.DataFrame) -> list[str | None]:
    """Return the roles that the data give in `data.role_column`; None for unused pairs."""
    roles: list[str] = pairs["role"].to_list()
    for uid, role in zip(pairs["uid"], roles, strict=True):
        require_one_of(f"[data] role_column, pair {shorten(uid)}", role, ("", *ROLES))
    return [role or None for role in roles]


def read_wrong(path: str, uids: frozenset[str], *, others: Literal["refuse", "leave out"] = "refuse") -> frozenset[str]:
    """Read the pairs known to be wrong: a uid per line of .txt, or the column `uid`; `others` as in `read_roles`."""
    file, what = Path(path), "[split] wrong"
    try:
        if file.suffix.lower() == ".txt":
            lines = [line.strip() for line in file.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
            table = pl.DataFrame({"uid": lines}, schema={"uid": pl.String})
        else:
            table = read_table(file, what, ("uid",))
    except (OSError, UnicodeDecodeError) as error:
        raise as_read_error(error, f"{what}, {file}", expected="a text file with a uid per line") from error
    known = uids if others == "refuse" else uids.union(table["uid"].cast(pl.String))
    return uids.intersection(known_uids(table, known, f"{what}, {file}"))


def _optional(table: pl.DataFrame, name: str) -> list[object]:
    return table[name].to_list() if name in table.columns else [None] * table.height


def _truth(value: object, what: str) -> bool:
    if value is None or isinstance(value, bool):
        return bool(value)
    truth = _TRUTH.get(str(value).casefold())
    require(truth is not None, what, f"planted {shorten(value)}", "true or false", "Fix that row.")
    return bool(truth)
