"""Pairs of a data set: their table, where their images are read, and parts of them with decoded images."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import polars as pl
from jaxtyping import Int64, UInt8

from clipmem.base.errors import InputError
from clipmem.data.decoding import DecodeError, Geometry, decode
from clipmem.data.skipped import Problem
from clipmem.data.sources import open_data
from clipmem.data.sources.base import Source

BLOCK = 1024  # pairs whose decoded images are in memory at a time
_READ = 64  # encoded images in memory at a time
Pixels = UInt8[np.ndarray, "n size size 3"]


@dataclass
class Pairs:
    """Pairs in the order of reading.

    The table has a row per pair: `uid`; with a source also `key`, `image` and `captions`; with labels their number,
    `class`.
    """

    name: str  # of the data, in errors and in the list of skipped records
    table: pl.DataFrame
    source: Source | None = None  # of the images
    problems: list[Problem] = field(default_factory=list)  # skipped records
    pixels: Mapping[Geometry, Pixels] = field(default_factory=dict[Geometry, Pixels])  # see `decoded`
    data: str = ""  # name of the data that they are a selection of; by default `name`

    def __post_init__(self) -> None:
        self.data = self.data or self.name

    def __getstate__(self) -> dict[str, Any]:
        """Return what another process needs: it opens the data again."""
        return {**vars(self), "source": self.source and self.source.section}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state | {"source": state["source"] and open_data(state["source"])})

    def __len__(self) -> int:
        return self.table.height

    @property
    def uids(self) -> pl.Series:
        """The uid of each pair."""
        return self.table["uid"]

    @property
    def keys(self) -> pl.Series:
        """The name of each pair in the list of skipped records."""
        return self.table["key"] if "key" in self.table.columns else self.uids

    @property
    def captions(self) -> list[list[str]]:
        """The captions of each pair."""
        return self.table["captions"].to_list()

    @property
    def labels(self) -> Int64[np.ndarray, " n"] | None:
        """The class number of each pair; None without labels."""
        return self.table["class"].to_numpy() if "class" in self.table.columns else None

    def select(self, uids: Sequence[str], name: str) -> "Pairs":
        """Return the pairs with these uids."""
        return Pairs(name, self.table.filter(pl.col("uid").is_in(list(uids))), self.source, data=self.data)

    def decoded(self, rows: Int64[np.ndarray, " k"], geometries: Sequence[Geometry]) -> "Pairs":
        """Return the pairs of some rows whose images decode, with `pixels`; the others are its `problems`."""
        table = self.table[rows]
        images, usable, problems = list[list[np.ndarray]](), list[bool](), list[Problem]()
        references = table["image"].to_list()
        blocks = (self._read(references[start : start + _READ]) for start in range(0, len(references), _READ))
        for key, content in zip(table["key"], (content for block in blocks for content in block), strict=True):
            reason = "unreadable image"
            if content is not None:
                try:
                    images.append([decode(content, name=f"image {key!r}", **target._asdict()) for target in geometries])
                    usable.append(True)
                    continue
                except DecodeError as error:
                    reason = error.reason
            usable.append(False)
            problems.append(Problem(self.data, key, reason))
        pixels = {
            geometry: np.stack([sizes[k] for sizes in images])
            if images
            else np.zeros((0, geometry.size, geometry.size, 3), dtype=np.uint8)
            for k, geometry in enumerate(geometries)
        }
        usable_rows = pl.Series(usable, dtype=pl.Boolean)
        return replace(self, table=table.filter(usable_rows), problems=problems, pixels=pixels)

    def blocks(self, rows: range, size: int, geometries: Sequence[Geometry]) -> Iterator["Pairs"]:
        """Decode consecutive rows, `size` at a time."""
        for start in range(rows.start, rows.stop, size):
            yield self.decoded(np.arange(start, min(start + size, rows.stop)), geometries)

    def _read(self, references: Sequence[str]) -> list[bytes | None]:
        """Read encoded images; None for those that cannot be read."""
        if self.source is None:
            raise TypeError("these pairs have no images")
        try:
            return list(self.source.read(references))
        except (InputError, OSError):
            if len(references) == 1:
                return [None]
            return [content for reference in references for content in self._read([reference])]
