"""Tables by uid that users give (roles, objects, wrong pairs), and lists of uids that they get.

A roles file may be the splits of another run. Objects are those of Déjà Vu memorization. Lists are text, Parquet, CSV
or DataComp's `.npy`: a sorted array of dtype `u8,u8`, the format of its resharder, with a uid of 32 hexadecimal digits
as two 64-bit numbers. CSV is for spreadsheets: cells that look like formulas are escaped.

When not to trust it: clipmem cannot verify the roles. An external pair that a model trained on biases every score.
"""

import csv
import io
import math
import re
from collections import Counter
from collections.abc import Container, Iterable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl
from jaxtyping import Shaped

from clipmem.base.errors import InputError, did_you_mean, require, require_columns, require_one_of, shorten
from clipmem.base.paths import atomic_write, reading
from clipmem.base.sections import ROLES

COLUMNS = ("uid", "objects")
_TRUTH = {"true": True, "1": True, "false": False, "0": False, "": False}
ENDINGS = (".txt", ".parquet", ".npy", ".csv")
DATACOMP = np.dtype("u8,u8")
_UID = re.compile(r"[0-9a-f]{32}")
# start of a formula in spreadsheets, some of which skip tabs and carriage returns
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")


def read_table(path: Path, subject: str, columns: Sequence[str], *, optional: Sequence[str] = ()) -> pl.DataFrame:
    """Read columns of a Parquet or CSV file; missing `optional` columns are ignored. CSV cells stay strings."""
    where = f"{subject}, {path}"
    try:
        is_csv = path.suffix.lower() == ".csv"
        table = pl.read_csv(path, infer_schema=False) if is_csv else None
        available = list(pl.read_parquet_schema(path)) if table is None else table.columns
        absent = next((name for name in columns if name not in available), "")
        require_columns(where, available, columns, did_you_mean(absent, available, kind="column"))
        used = [*columns, *(name for name in optional if name in available)]
        return pl.read_parquet(path, columns=used) if table is None else table.select(used)
    except (OSError, pl.exceptions.PolarsError) as error:
        got = f"an unreadable file ({shorten(str(error))})" if path.exists() else "no such file"
        expected = f"a Parquet or CSV file with the columns {', '.join(columns)}"
        hint = "Check the path: relative paths start at the working directory."
        raise InputError(where, got=got, expected=expected, hint=hint) from error


def known_uids(table: pl.DataFrame, data_uids: Iterable[str], subject: str) -> list[str]:
    """Return the uids of a user's table; they must be unique and belong to pairs of the data."""
    uids: list[str | None] = table["uid"].cast(pl.String).to_list()
    allowed: Container[object] = frozenset(data_uids)
    unknown_uids = [(row, uid) for row, uid in enumerate(uids, start=1) if uid not in allowed]
    for row, uid in unknown_uids:
        share = f"{len(unknown_uids):,} of {len(uids):,} rows"
        got = f"unknown uid {shorten(uid)} ({share})" if uid else f"no uid ({share})"
        hint = "Take uids from pairs.parquet of a run on the same data."
        raise InputError(f"{subject}, row {row}", got=got, expected="uids of the data's pairs", hint=hint)
    [(uid, times)] = Counter(uids).most_common(1) or [("", 0)]
    require(times < 2, subject, f"uid {shorten(uid)} in {times} rows", "one row per pair", "Merge its rows.")
    return [str(uid) for uid in uids]


def text_of(value: object) -> str:
    """Return a value as text; none and NaN are empty."""
    return "" if value is None or (isinstance(value, float) and math.isnan(value)) else str(value)


def split_objects(value: object) -> list[str]:
    """Return the unique objects of a record, given as a list or as comma-separated text."""
    items = value.split(",") if isinstance(value, str) else value if isinstance(value, list) else [value]
    return list(dict.fromkeys(text for item in items if (text := text_of(item).strip())))


def object_lists(column: pl.Series) -> list[list[str]]:
    """Read a column of objects (see `split_objects`); null is no object, and numbers are refused."""
    empty = column.null_count() == len(column) or column.dtype == pl.List(pl.Null)
    has_strings, subject = empty or column.dtype in (pl.String, pl.List(pl.String)), f"column {column.name!r}"
    expected = "lists of strings, or comma-separated strings"
    require(has_strings, subject, f"{column.dtype}", expected, "Convert the objects to strings.")
    return [split_objects(value) for value in column.to_list()]


def with_objects(pairs: pl.DataFrame, path: str) -> pl.DataFrame:
    """Replace the objects of the source by those of a user's file, if given."""
    if not path:
        return pairs
    table = read_table(Path(path), "[dejavu] objects", COLUMNS)
    uids = known_uids(table, pairs["uid"].to_list(), "[dejavu] objects")
    objects = dict(zip(uids, object_lists(table["objects"]), strict=True))
    got = f"no object in the {len(objects):,} rows of {path}"
    hint = "Fill its column 'objects', or unset dejavu.objects."
    require(any(objects.values()), "[dejavu] objects", got, "at least one object", hint)
    column = pl.Series("objects", [objects.get(uid, []) for uid in pairs["uid"]], dtype=pl.List(pl.String))
    return pairs.with_columns(column)


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
    subject, data_uids = f"[given] roles, {path}", list(uids)
    table = read_table(path, "[given] roles", ("uid", "role"), optional=("planted", "captions_from"))
    if others == "leave out":
        table = table.filter(pl.col("uid").is_in(data_uids))
    known_uids(table, uids, subject)
    for row, role in enumerate(table["role"], start=1):
        require_one_of(f"{subject}, row {row}", role, ROLES)
    absent = {"planted", "captions_from"}.difference(table.columns)
    table = table.with_columns(pl.lit(None).alias(name) for name in absent)
    planted: list[bool] = []
    for row, value in enumerate(table["planted"], start=1):
        truth = _TRUTH.get("" if value is None else str(value).casefold())
        got, hint = f"planted {shorten(value)}", "Fix that row."
        require(truth is not None, f"{subject}, row {row}", got, "true or false", hint)
        planted.append(bool(truth))
    source = pl.coalesce(pl.col("captions_from").cast(pl.String).replace("", None), "uid")
    roles = table.select("uid", "role", pl.Series("planted", planted), captions_from=source)
    if others == "leave out":
        roles = roles.filter(pl.col("captions_from").is_in(data_uids))
    unknown_uids = roles.filter(~pl.col("captions_from").is_in(data_uids))["captions_from"]
    got = f"captions_from {', '.join(map(shorten, unknown_uids.head(1)))}"
    hint = "Set it to the pair whose captions it has, or leave it empty."
    require(unknown_uids.is_empty(), subject, got, "uids of the data", hint)
    counts = {role: int((roles["role"] == role).sum()) for role in ROLES}
    got = ", ".join(f"{role} {count}" for role, count in counts.items())
    expected = "at least 2 external pairs, which no model trained on, and 1 candidate"
    hint = "Add external pairs: they are the bank of every score."
    require(counts["external"] >= 2 and counts["candidate"], subject, got, expected, hint)
    return roles.sort("uid")


def roles_of(pairs: pl.DataFrame) -> list[str | None]:
    """Return the roles that the data give in `data.role_column`; None for unused pairs."""
    roles: list[str] = pairs["role"].to_list()
    for uid, role in zip(pairs["uid"], roles, strict=True):
        require_one_of(f"[data] role_column, pair {shorten(uid)}", role, ("", *ROLES))
    return [role or None for role in roles]


def read_wrong(path: str, uids: frozenset[str], *, others: Literal["refuse", "leave out"] = "refuse") -> frozenset[str]:
    """Read the pairs known to be wrong: a uid per line of .txt, or the column `uid`; `others` as in `read_roles`."""
    file, subject = Path(path), "[split] wrong"
    with reading(f"{subject}, {file}", expected="a text file with a uid per line"):
        if file.suffix.lower() == ".txt":
            lines = [line.strip() for line in file.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
            table = pl.DataFrame({"uid": lines}, schema={"uid": pl.String})
        else:
            table = read_table(file, subject, ("uid",))
    accepted = uids if others == "refuse" else uids.union(table["uid"].cast(pl.String))
    return uids.intersection(known_uids(table, accepted, f"{subject}, {file}"))


def csv_cell(text: str) -> str:
    """Escape a text for spreadsheets: an apostrophe before formulas, and escaped control characters."""
    escaped = "".join(c if (c >= " " and c != "\x7f") or c in "\n\t" else f"\\x{ord(c):02x}" for c in text)
    return f"'{escaped}" if text.startswith(_FORMULA) or escaped.lstrip().startswith(_FORMULA) else escaped


def datacomp_array(uids: Sequence[str]) -> Shaped[np.ndarray, " n"]:
    """Return the unique uids as DataComp's sorted array of two 64-bit numbers each."""
    for uid in uids:
        if not _UID.fullmatch(uid):
            got, hint = "another format", "Write .txt or .parquet instead."
            raise InputError(f"uid {shorten(uid)}", got=got, expected="32 hexadecimal digits", hint=hint)
    return np.array([(int(uid[:16], 16), int(uid[16:], 16)) for uid in sorted(set(uids))], dtype=DATACOMP)


def write_ids(path: Path, table: pl.DataFrame) -> Path:
    """Write a list of uids in the format of the file extension."""
    got, hint = f"the file extension {path.suffix!r}", "Choose the format by the file extension."
    require(path.suffix in ENDINGS, f"--out {path}", got, ", ".join(ENDINGS), hint)
    uids: list[str] = table["uid"].to_list()
    stream = io.BytesIO()
    if path.suffix == ".txt":
        stream.write("".join(f"{uid}\n" for uid in uids).encode())
    elif path.suffix == ".npy":
        np.save(stream, datacomp_array(uids), allow_pickle=False)
    elif path.suffix == ".parquet":
        table.write_parquet(stream, compression="zstd", statistics=False)
    else:
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
        writer.writerow(table.columns)
        for row in table.iter_rows():
            cells = [" | ".join(map(str, value)) if isinstance(value, list) else value for value in row]
            writer.writerow([csv_cell(cell) if isinstance(cell, str) else cell for cell in cells])
        stream.write(text.getvalue().encode())
    atomic_write(path, stream.getvalue())
    return path
