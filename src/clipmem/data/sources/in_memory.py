"""Tables in memory as data: written to a temporary Parquet file, which is read like any other."""

import shutil
import tempfile
import weakref
from pathlib import Path
from typing import Any

import polars as pl


def is_table(data: Any) -> bool:
    """Return whether data are a polars or pandas DataFrame, or a `datasets.Dataset`."""
    return any(hasattr(data, name) for name in ("write_parquet", "to_parquet"))


class TableFile:
    """The temporary Parquet file of a table; removed with this object.

    Args:
        table: A polars or pandas DataFrame, or a `datasets.Dataset`. Image paths in it may be relative to the working
            directory.
    """

    def __init__(self, table: Any) -> None:
        folder = tempfile.mkdtemp(prefix="clipmem-pairs-")
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        self.path = Path(folder) / "pairs.parquet"
        if hasattr(table, "cast_column"):  # a `datasets.Dataset`: its images as they are stored
            for name, feature in table.features.items():
                if type(feature).__name__ == "Image":
                    table = table.cast_column(name, type(feature)(decode=False))
            table.to_parquet(self.path)
            return
        frame = table if isinstance(table, pl.DataFrame) else pl.from_pandas(table)
        frame.with_columns(_absolute(frame[name]) for name in frame.columns if _has_paths(frame[name])).write_parquet(
            self.path
        )


def _has_paths(column: pl.Series) -> bool:
    """Return whether a column of texts begins with the path of a file."""
    if column.dtype != pl.String or column.is_empty() or column[0] is None:
        return False
    text = column[0]
    return len(text) < 1024 and "\0" not in text and Path(text).is_file()


def _absolute(column: pl.Series) -> pl.Series:
    paths = [None if text is None else str(Path(text).absolute()) for text in column]
    return pl.Series(column.name, paths, dtype=pl.String)
