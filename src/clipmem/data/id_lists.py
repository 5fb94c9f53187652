"""Lists of uids as text, Parquet, CSV, or DataComp's `.npy`.

The `.npy` is a sorted array of dtype `u8,u8`, the format of DataComp's resharder: a uid of 32 hexadecimal digits as two
64-bit numbers. CSV is for spreadsheets: cells that look like formulas are escaped.
"""

import csv
import io
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
from jaxtyping import Shaped

from clipmem.base.atomic import atomic_write
from clipmem.base.errors import InputError, shorten
from clipmem.base.require import require

ENDINGS = (".txt", ".parquet", ".npy", ".csv")
DATACOMP = np.dtype("u8,u8")
_UID = re.compile(r"[0-9a-f]{32}")
# start of a formula in spreadsheets, some of which skip tabs and carriage returns
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")


def csv_cell(text: str) -> str:
    """Escape a text for spreadsheets: an apostrophe before formulas, and escaped control characters."""
    shown = "".join(c if (c >= " " and c != "\x7f") or c in "\n\t" else f"\\x{ord(c):02x}" for c in text)
    return f"'{shown}" if text.startswith(_FORMULA) or shown.lstrip().startswith(_FORMULA) else shown


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
        stream.write(_csv(table).encode())
    atomic_write(path, stream.getvalue())
    return path


def _csv(table: pl.DataFrame) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
    writer.writerow(table.columns)
    for row in table.iter_rows():
        writer.writerow([_cell(value) for value in row])
    return text.getvalue()


def _cell(value: object) -> object:
    if isinstance(value, list):
        value = " | ".join(map(str, value))
    return csv_cell(value) if isinstance(value, str) else value
