"""The pairs to score and their bank."""

import hashlib
import heapq
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import polars as pl

from clipmem.base.errors import InputError, shorten
from clipmem.base.paths import checked_path
from clipmem.base.require import require
from clipmem.base.tables import write_table
from clipmem.data.quarantine import Problem, quarantine_table
from clipmem.data.sources.base import Source
from clipmem.models.layout import Layout

_OF_DATA = {"image", "image_path", "filepath", "file_name", "caption", "captions", "title", "text"}
QUARANTINE = "quarantine.parquet"


@dataclass
class Pairs:
    """Pairs in the order of reading."""

    name: str
    table: pl.DataFrame
    source: Source | None = None
    layout: Layout | None = None
    labels: np.ndarray | None = None
    problems: list[Problem] = field(default_factory=list)

    def __len__(self) -> int:
        return self.table.height

    def only(self, uids: Sequence[str], name: str) -> "Pairs":
        """Return the pairs with these uids."""
        where = self.table["uid"].is_in(list(uids))
        labels = None if self.labels is None else self.labels[where.to_numpy()]
        return Pairs(name, self.table.filter(where), self.source, self.layout, labels)

    def keys(self) -> pl.Series:
        """Return the names of pairs in the quarantine."""
        return self.table["key"] if "key" in self.table.columns else self.table["uid"]

    def captions(self, uids: Sequence[str]) -> list[list[str]]:
        """Return the captions of some pairs; empty if unknown."""
        if "captions" in self.table.columns:
            chosen = self.table.filter(pl.col("uid").is_in(list(uids)))
            found = dict(zip(chosen["uid"], chosen["captions"].to_list(), strict=True))
            return [found[uid] for uid in uids]
        if self.layout is None:
            return [[] for _ in uids]
        rows = self.layout.uids.to_frame("uid").with_row_index("row").filter(pl.col("uid").is_in(list(uids)))
        place = dict(rows.unique("uid", keep="first", maintain_order=True).select("uid", "row").iter_rows())
        return self.layout.captions(np.array([place[uid] for uid in uids], dtype=np.int64))


def stored_pairs(layout: Layout) -> Pairs:
    """Return the unique pairs of stored embeddings."""
    name, uids = str(layout.folder), layout.uids
    first = uids.is_first_distinct()
    if not len(uids):
        raise InputError(f"embeddings in {name}", got="no pair", expected="at least one pair", hint="Check the path.")
    problems = read_quarantine(layout.folder / QUARANTINE)
    problems += [Problem(name, uid, "duplicate pair") for uid in uids.filter(~first)]
    return Pairs(name, uids.filter(first).to_frame("uid"), layout=layout, problems=problems)


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


@dataclass(frozen=True)
class Bank:
    """The held-out pairs."""

    pairs: Pairs
    drawn: bool

    def check(self, data: Pairs) -> None:
        """Check that every pair of the data has another pair in the bank."""
        require(len(self.pairs), f"--bank {self.pairs.name}", "no pair", "at least one pair", "Check the path.")
        own = len(self.pairs) == 1 and self.pairs.table["uid"][0] in data.table["uid"]
        self.check_own(len(self.pairs), own, "one pair, which is scored itself")

    def check_own(self, count: int, own: bool, got: str) -> None:
        """Refuse a bank of one pair that is scored itself."""
        hint = "Enlarge the bank: a pair is never in its own bank."
        require(count != 1 or not own, f"bank {self.pairs.name}", got, "another pair in the bank", hint)


def bank_of_uids(uids: Sequence[str], data: Pairs, name: str) -> Bank:
    """Return the bank of some pairs of the data."""
    known = set(data.table["uid"])
    unknown = [uid for uid in uids if uid not in known]
    got = f"unknown uid {', '.join(map(shorten, unknown[:1]))} ({len(unknown):,} of {len(uids):,})"
    hint = "Take uids from a table of scores of the same data."
    require(not unknown, f"--bank {name}", got, "uids of the data's pairs", hint)
    return Bank(data.only(uids, name), drawn=False)


def write_quarantine(path: Path, problems: Sequence[Problem]) -> None:
    """Write the records left out: source, key, reason."""
    write_table(path, "quarantine", quarantine_table(dict.fromkeys(problems)))  # the bank may be the data


def read_quarantine(path: Path) -> list[Problem]:
    """Read a quarantine; empty if there is no such file."""
    return [Problem(*row) for row in pl.read_parquet(path).iter_rows()] if path.is_file() else []
