"""The bank: its choice from the data or a list of uids, and sums over a bank of any size, accumulated block by block.

The sums are fixed-point integers, so that neither blocks nor the order of records change a score. The error of a mean
is at most 2^-37 (7e-12); a bank can have 2^26 pairs.
"""

import hashlib
import heapq
import re
from pathlib import Path
from typing import NamedTuple

import polars as pl
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from clipmem.base.errors import InputError, require
from clipmem.base.paths import checked_path, parsing
from clipmem.stats.alignment import BankMeans

_OF_DATA = {"image", "image_path", "filepath", "file_name", "caption", "captions", "title", "text"}
_UNIT = 2.0**36
MOST = 2**26  # 2^36 * 2^26 is below 2^63, also for means slightly longer than 1


class BankSums(NamedTuple):
    """Sums over some of the bank's pairs, in units of 2^-36.

    Attributes:
        image: Σ ū, shape (d,).
        text: Σ v̄, shape (d,).
        own: Σ of the alignment's positive part, of ū·ū and of v̄·v̄, shape (3,).
        pairs: Number of pairs, shape (1,).
    """

    image: Int[Tensor, " d"]
    text: Int[Tensor, " d"]
    own: Int[Tensor, "3"]
    pairs: Int[Tensor, "1"]

    @property
    def means(self) -> BankMeans:
        """ī, t̄ and the number of pairs, at least 1."""
        count = int(self.pairs)
        return BankMeans(self.image.double() / _UNIT / count, self.text.double() / _UNIT / count, count)

    @property
    def mean_positive(self) -> Float[Tensor, "1"]:
        """Mean of the alignment's positive part over the bank's own pairs, shape (1,)."""
        return self.own[:1].double() / _UNIT / int(self.pairs)

    @property
    def mean_squares(self) -> Float[Tensor, "2"]:
        """Means of ū·ū and of v̄·v̄, shape (2,)."""
        return self.own[1:].double() / _UNIT / int(self.pairs)


def bank_sums(
    image: Float[Tensor, "n d"], text: Float[Tensor, "n d"], positive: Float[Tensor, " n"], ok: Bool[Tensor, " n"]
) -> BankSums:
    """Sum over the pairs that are `ok`.

    Example:
        >>> u = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
        >>> bank = bank_sums(u, u, torch.ones(2), torch.tensor([True, True])).means
        >>> bank.image.tolist(), bank.text.tolist(), bank.pairs
        ([0.5, 0.5], [0.5, 0.5], 2)
    """
    u, v = image[ok].double(), text[ok].double()
    terms = torch.stack([positive[ok].double(), u.square().sum(dim=-1), v.square().sum(dim=-1)], dim=1)
    image_sum, text_sum, own_sum = ((values * _UNIT).round().long().sum(dim=0) for values in (u, v, terms))
    return BankSums(image_sum, text_sum, own_sum, ok.sum().reshape(1))


def add(sums: list[BankSums]) -> BankSums:
    """Add the sums of all blocks."""
    total = BankSums(*(torch.stack(values).sum(dim=0) for values in zip(*sums, strict=True)))
    require(int(total.pairs) <= MOST, "bank", f"{int(total.pairs):,} pairs", f"at most {MOST:,}", "Use fewer pairs.")
    return total


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
    broken = (OSError, UnicodeDecodeError, pl.exceptions.PolarsError)
    with parsing(f"--bank {path}", "an unreadable file", broken, expected="uids, or a data set", hint=""):
        if ending == ".txt":
            lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
            # text files with captions are data sets
            return None if any(re.search(r"[\s,]", line) for line in lines) else lines
        table = pl.read_csv(path, infer_schema=False) if ending == ".csv" else pl.scan_parquet(path)
        names = table.collect_schema().names()
        if "uid" not in names or _OF_DATA & set(names):
            return None
        listed = table.lazy().select(pl.col("uid", *(["role"] if "role" in names else [])).cast(pl.String)).collect()
    if "role" in names:
        listed = listed.filter(pl.col("role") == "external")
    return listed["uid"].drop_nulls().to_list()
