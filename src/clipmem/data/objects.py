"""Objects of pictures, for Déjà Vu memorization: a column of them read, and a user's own list put in place of it.

What an object is, the labels say: categories of detectors or annotators, keywords. A pair without an object does not
count in Déjà Vu. The measure sees no object that the labels do not name.
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import polars as pl

from clipmem.base.errors import InputError, shorten
from clipmem.base.suggest import did_you_mean

COLUMNS = ("uid", "objects")


def object_lists(column: pl.Series) -> list[list[str]]:
    """Read a column of objects: a list of texts a row, or one text with commas between them.

    Args:
        column: Lists of text or text; null is no object.

    Returns:
        The objects of each row, without spaces around them, each once, in the order given.

    Raises:
        InputError: The column holds neither.

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
            todo="Turn the objects into text.",
        )
    return [list(dict.fromkeys(text for item in row or () if (text := (item or "").strip()))) for row in rows]


def with_objects(pairs: pl.DataFrame, path: str) -> pl.DataFrame:
    """Put the objects of a user's file in place of those of the source.

    Args:
        pairs: The pairs, with the columns of the `pairs` table.
        path: Parquet with the columns uid and objects (see `object_lists`); pairs that it does not name have no
            object. Empty: the pairs stay as they are.

    Returns:
        The pairs with the column `objects`.

    Raises:
        InputError: The file cannot be read, lacks a column, names a pair twice or one that is not in the data, or has
            no object at all.
    """
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
            todo="Fill its column 'objects', or set dejavu.objects to an empty text.",
        )
    column = pl.Series("objects", [objects.get(uid, []) for uid in pairs["uid"]], dtype=pl.List(pl.String))
    return pairs.with_columns(column)


def read_columns(path: Path, what: str, columns: Sequence[str]) -> pl.DataFrame:
    """Read these columns of a Parquet file that a setting names.

    Args:
        path: The file.
        what: The setting, for messages.
        columns: The columns it must have.

    Raises:
        InputError: The file is missing or is not Parquet, or a column is missing.
    """
    try:
        names = pl.read_parquet_schema(path)
        for column in columns:
            if column not in names:
                raise InputError(
                    f"{what}",
                    got=f"no column {column!r} in {path}",
                    expected=f"the columns {list(columns)}",
                    todo=did_you_mean(column, names, kind="column"),
                )
        return pl.read_parquet(path, columns=list(columns))
    except (pl.exceptions.PolarsError, OSError) as error:
        found = f"not readable as Parquet ({shorten(str(error))})" if path.is_file() else "no such file"
        raise InputError(
            f"{what}",
            got=f"{str(path)!r}: {found}",
            expected=f"a Parquet file with the columns {list(columns)}",
            todo="Check the path.",
        ) from error


def known_uids(table: pl.DataFrame, known: Sequence[str], what: str) -> list[str]:
    """Return the uids of a user's table, each once and each of a pair of the data.

    Raises:
        InputError: A uid is none, unknown, or stands in two rows.
    """
    uids, there = table["uid"].cast(pl.String).to_list(), set(known)
    strangers = [uid for uid in uids if uid not in there]
    if strangers:
        raise InputError(
            what,
            got=f"uid {shorten(strangers[0])} ({len(strangers):,} of {len(uids):,} rows), which no pair has",
            expected="uids of the data's pairs",
            todo="Take them from pairs.parquet of a run folder of these data.",
        )
    twice = [uid for uid, times in Counter(uids).items() if times > 1]
    if twice:
        raise InputError(
            what, got=f"uid {shorten(twice[0])} in {Counter(uids)[twice[0]]} rows", expected="one row a pair",
            todo="Join its rows into one.",
        )  # fmt: skip
    return uids
