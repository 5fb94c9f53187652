"""Pairs of a data set: their table, where their images are read, and parts of them with decoded images."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import ClassVar, NamedTuple

import numpy as np
import polars as pl
from jaxtyping import Int64, UInt8

from clipmem.base.errors import InputError, require
from clipmem.base.hashing import data_fingerprint, json_sha256
from clipmem.base.remote import AnyPath, RemotePath
from clipmem.base.sections import DataSection
from clipmem.data.decoding import DecodeError, Geometry, decode
from clipmem.data.skipped import Ledger, Problem
from clipmem.data.sources import open_data, open_source
from clipmem.data.sources.base import Source

BLOCK = 1024  # pairs whose decoded images are in memory at a time
BESIDE = (".parquet", "_stats.json")  # endings of img2dataset's files, which say what failed
_READ = 64  # encoded images in memory at a time
_COLUMNS = ("uid", "key", "image", "captions", "label")
Pixels = UInt8[np.ndarray, "n size size 3"]


class Part(NamedTuple):
    """Pairs to embed together: what tells them from others, how many units they are, and what reads them anywhere."""

    content: Sequence[object]
    size: int
    read: Callable[[], "Pairs"]
    check: Callable[[], None] | None = None  # raises an error if what was read is not what was listed


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
    ledger: Ledger = field(default_factory=Ledger)  # of the records that they were listed from
    shards: "ShardedPairs | None" = None  # the files that they are in, if each is to be embedded alone
    unit: ClassVar[str] = "pairs"

    @classmethod
    def listed(cls, source: Source, captions: int | None) -> "Pairs":
        """List the pairs of a source in storage order."""
        table = source.pairs()
        table = table[source.storage_order(table["image"].to_list())].select(_COLUMNS)
        if captions is not None:
            table = table.with_columns(pl.col("captions").list.head(captions))
        if "" not in set(table["label"]):
            table = table.with_columns(pl.col("label").rank("dense").cast(pl.Int64).sub(1).alias("class"))
        return cls(source.title, table, source, list(source.problems), ledger=source.ledger)

    def __post_init__(self) -> None:
        self.data = self.data or self.name

    def __getstate__(self) -> dict[str, object]:
        """Return what another process needs: it opens the data again."""
        return {**vars(self), "source": self.source and self.source.section}

    def __setstate__(self, state: dict[str, object]) -> None:
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

    @property
    def fingerprint(self) -> str:
        """What tells these pairs from others."""
        return data_fingerprint(self.uids)

    def about(self, part: int) -> dict[str, object]:
        """Return what tells these pairs, in parts of some size, from others."""
        parts = -(-len(self) // part)
        return {"data": data_fingerprint(self.uids, ordered=True), "pairs": len(self), "parts": parts, "part": part}

    def parts(self, part: int) -> Iterator[Part]:
        """Yield consecutive pairs, `part` at a time."""
        for start in range(0, len(self), part):
            pairs = replace(self, table=self.table[start : start + part], problems=[], ledger=Ledger())
            yield Part(pairs.uids.to_list(), len(pairs), partial(replace, pairs))

    def refuse(self, option: str, out: Path | None) -> None:
        """Raise an `InputError` if an output is inside the data or among their images."""
        if self.source is not None and out is not None:
            self.source.refuse(option, out)

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
            geometry: np.array([sizes[k] for sizes in images], np.uint8).reshape(-1, geometry.size, geometry.size, 3)
            for k, geometry in enumerate(geometries)
        }
        return replace(self, table=table.filter(pl.Series(usable, dtype=pl.Boolean)), problems=problems, pixels=pixels)

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


@dataclass
class ShardedPairs:
    """Pairs in several files, each of which is listed where it is embedded, so that nothing holds all of them."""

    source: Source
    captions: int | None
    ledger: Ledger = field(default_factory=Ledger)  # complete once all are embedded
    unit: ClassVar[str] = "kB"

    def __post_init__(self) -> None:
        self.source.ledger.clear()
        self.section, self.files = self.source.shards()
        with ThreadPoolExecutor(16) as threads:  # of a remote file, requests
            self.shards = dict(zip(self.files, threads.map(_state, self.files.values()), strict=True))
        self.listing = {name: f"{size:,} bytes, {state}" for name, (size, state) in self.shards.items()}
        self.problems = list(self.source.problems)  # folders that cannot be read
        self.fingerprint = json_sha256(list(self.listing.items()))

    def about(self, part: int) -> dict[str, object]:  # noqa: ARG002
        """Return what tells these pairs from others."""
        return {"data": self.fingerprint, "parts": len(self.shards)}

    def parts(self, part: int) -> Iterator[Part]:  # noqa: ARG002
        """Yield a part for each shard."""
        title, outputs = self.source.title, self.source.outputs
        for name, (size, state) in self.shards.items():
            read = partial(_read_shard, self.section, name, self.captions, title, outputs)
            check = partial(_refuse_changed, self.files[name], (size, state))
            yield Part((name, size, state), -(-size // 1000), read, check)


def _state(file: AnyPath) -> tuple[int, str]:
    """Return the size of a shard, and a hash of its facts and those of img2dataset's files beside it."""
    beside = [] if file.suffix == ".parquet" else [file.with_name(f"{file.stem}{end}") for end in BESIDE]
    facts = [_facts(path) for path in (file, *(path for path in beside if path.is_file()))]
    return facts[0][0], json_sha256([*facts[0], *facts[1:]])[:8]


def _facts(file: AnyPath) -> tuple[int, object]:
    return file.facts() if isinstance(file, RemotePath) else (file.stat().st_size, file.stat().st_mtime_ns)


def _refuse_changed(file: AnyPath, before: tuple[int, str]) -> None:
    file.stat()  # asks the store of a remote file again
    now, then = (f"{size:,} bytes, {state}" for size, state in (_state(file), before))
    hint = "Do not change data while they are read. Run the same command again."
    require(now == then, f"{file}", f"{now}, after it was read", f"{then}, as before", hint)


def _read_shard(section: DataSection, shard: str, captions: int | None, title: str, outputs: dict[Path, str]) -> Pairs:
    source = open_source(section, shard=shard)
    source.title, source.outputs = title, outputs
    return replace(Pairs.listed(source, captions), data=shard)
