"""Objects of images, for Déjà Vu memorization: a column of them read, and a user's own list put in place of it."""

from pathlib import Path

import polars as pl

from clipmem.base.require import require
from clipmem.data.user_tables import known_uids, read_table

COLUMNS = ("uid", "objects")


def split_objects(value: object) -> list[str]:
    """Read the objects of one record: a list of texts, or one text with commas between them; each once, in order."""
    items = value.split(",") if isinstance(value, str) else value if isinstance(value, list) else [value]
    return list(dict.fromkeys(text for item in items if (text := str("" if item is None else item).strip())))


def object_lists(column: pl.Series) -> list[list[str]]:
    """Read a column of objects, see `split_objects`; null is no object, and numbers are refused."""
    empty = column.null_count() == len(column) or column.dtype == pl.List(pl.Null)
    right, what = empty or column.dtype in (pl.String, pl.List(pl.String)), f"column {column.name!r}"
    expected = "lists of text, or text with commas between the objects"
    require(right, what, f"{column.dtype}", expected, "Turn the objects into text.")
    return [split_objects(value) for value in column.to_list()]


def with_objects(pairs: pl.DataFrame, path: str) -> pl.DataFrame:
    """Put the objects of a user's file in place of those of the source."""
    if not path:
        return pairs
    table = read_table(Path(path), "[dejavu] objects", COLUMNS)
    uids = known_uids(table, pairs["uid"].to_list(), "[dejavu] objects")
    objects = dict(zip(uids, object_lists(table["objects"]), strict=True))
    got = f"no object in the {len(objects):,} rows of {path}"
    hint = "Fill its column 'objects', or unset dejavu.objects."
    require(any(objects.values()), "[dejavu] objects", got, "an object in at least one", hint)
    column = pl.Series("objects", [objects.get(uid, []) for uid in pairs["uid"]], dtype=pl.List(pl.String))
    return pairs.with_columns(column)
