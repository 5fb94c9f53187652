"""Objects in images, for Déjà Vu memorization: from a column, or from a file of the user."""

import math
from pathlib import Path

import polars as pl

from clipmem.base.require import require
from clipmem.data.user_tables import known_uids, read_table

COLUMNS = ("uid", "objects")


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
    right, what = empty or column.dtype in (pl.String, pl.List(pl.String)), f"column {column.name!r}"
    expected = "lists of strings, or comma-separated strings"
    require(right, what, f"{column.dtype}", expected, "Convert the objects to strings.")
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
