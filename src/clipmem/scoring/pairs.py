"""Choice of the bank: a list of uids, or a sample of the data."""

import hashlib
import heapq
import re
from pathlib import Path

import polars as pl

from clipmem.base.errors import InputError, shorten
from clipmem.base.paths import checked_path

_OF_DATA = {"image", "image_path", "filepath", "file_name", "caption", "captions", "title", "text"}


def draw(uids: pl.Series, size: int, seed: int) -> list[str]:
    """Sample the bank from the data: the pairs with the smallest hashes of their uids."""
    if not 2 <= size < len(uids):
        few = len(uids) < 3
        expected = "at least 3 pairs, or --bank" if few else f"2 to {len(uids) - 1:,}: the others are scored"
        hint = "Give held-out pairs with --bank." if few else "Change it, or give held-out pairs with --bank."
        got = f"{size:,} of {len(uids):,} pair{'' if len(uids) == 1 else 's'} in the data"
        raise InputError("--bank-size", got=got, expected=expected, hint=hint)
    start = hashlib.blake2b(f"bank/{seed}/".encode(), digest_size=16)

    def place(uid: str) -> bytes:
        digest = start.copy()
        digest.update(uid.encode("utf-8", "surrogatepass"))
        return digest.digest()

    return heapq.nsmallest(size, uids, key=place)


def listed_uids(path: Path) -> list[str] | None:
    """Read a list of uids: a .txt file, or a table with the column `uid` and no images or captions; else None.

    From a table with roles, such as `splits.parquet` of a run, the external pairs are read.
    """
    ending = checked_path(path, "--bank").suffix.lower()
    if not path.is_file() or ending not in {".txt", ".csv", ".parquet"}:
        return None
    try:
        if ending == ".txt":
            lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
            # text files with captions are data sets
            return None if any(re.search(r"[\s,]", line) for line in lines) else lines
        table = pl.read_csv(path, infer_schema=False) if ending == ".csv" else pl.scan_parquet(path)
        names = table.collect_schema().names()
        if "uid" not in names or _OF_DATA & set(names):
            return None
        listed = table.lazy().select(pl.col("uid", *(["role"] if "role" in names else [])).cast(pl.String)).collect()
    except (OSError, UnicodeDecodeError, pl.exceptions.PolarsError) as error:
        got = f"an unreadable file ({shorten(str(error))})"
        raise InputError(f"--bank {path}", got=got, expected="uids, or a data set") from error
    if "role" in names:
        listed = listed.filter(pl.col("role") == "external")
    return listed["uid"].drop_nulls().to_list()
