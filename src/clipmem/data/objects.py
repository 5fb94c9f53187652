"""Objects of pictures, for Déjà Vu memorization: a column of them read, and a user's own list put in place of it.

What an object is, the labels say: categories of detectors or annotators, keywords. A pair without an object does not
count in Déjà Vu. The measure sees no object that the labels do not name.
"""

from collections.abc import Sequence
from pathlib import Path

import polars as pl

from clipmem.base.errors import InputError
from clipmem.data.user_tables import known_uids, read_columns

COLUMNS = ("uid", "objects")


def object_lists(column: pl.Series) -> list[list[str]]:
    """Read a column of objects: a list of texts a row, or one text with commas between them.

    Example:
        >>> object_lists(pl.Series("objects", ["cat, sofa,cat", None, ""]))
        [['cat', 'sofa'], [], []]
    """
    if column.dtype == pl.String:
        rows: Sequence[Sequence[str | None] | None] = [None if text is None else text.split(",") for text in column]
    elif column.dtype == pl.List(pl.String):
        rows = column.to_list()
    elif column.null_count() == len(column) or column.dtype == pl.List(pl.Null):  # nothing but empty rows
        rows = [None] * len(column)
    else:
        raise InputError(
            f"column {column.name!r}",
            got=f"{column.dtype}",
            expected="lists of text, or text with commas between the objects",
            hint="Turn the objects into text.",
        )
    return [list(dict.fromkeys(text for item in row or () if (text := (item or "").strip()))) for row in rows]


def with_objects(pairs: pl.DataFrame, path: str) -> pl.DataFrame:
    """Put the objects of a user's file in place of those of the source."""
    if not path:
        return pairs
    table = read_columns(Path(path), "[dejavu] objects", COLUMNS)
    uids = known_uids(table, pairs["uid"].to_list(), "[dejavu] objects")
    objects = dict(zip(uids, object_lists(table["objects"]), strict=True))
    if not any(objects.values()):
        raise InputError(
            "[dejavu] objects",
            got=f"no object in the {len(objects):,} rows of {path}",
            expected="an object in at least one",
            hint="Fill its column 'objects', or set dejavu.objects to an empty text.",
        )
    column = pl.Series("objects", [objects.get(uid, []) for uid in pairs["uid"]], dtype=pl.List(pl.String))
    return pairs.with_columns(column)
