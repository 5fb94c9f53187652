"""Write pairs as webdataset tars, Parquet or an image folder: the same pictures, byte for byte, and the same captions.

Read back, the pairs have the same uids, and so the same scores. Made twice from the same source, the files have the
same bytes (Parquet: with the same version of pyarrow). Names of members and files are numbers: what a source called a
record stands in its column `key` and is never used as a path. Pictures that do not decode are left out and returned.
"""

import io
import json
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from clipmem.base.errors import InputError
from clipmem.data.decoding import DecodeError, decode, read_header
from clipmem.data.quarantine import Problem, source_name
from clipmem.data.sources.base import Source
from clipmem.store.atomic import atomic_file, make_folder

FORMATS = ("webdataset", "parquet", "imagefolder")
SHARD = 10_000
_BLOCK = 256
_ENDINGS = {"JPEG": "jpg", "PNG": "png", "WEBP": "webp", "GIF": "gif", "BMP": "bmp", "TIFF": "tif"}


class Item(NamedTuple):
    """One pair to be written: its number, its row of the pair table, the encoded picture, and what its name ends in."""

    number: int
    row: dict[str, Any]
    picture: bytes
    ending: str


def export_pairs(
    source: Source,
    out: Path,
    to: str,
    *,
    shard: int = SHARD,
    progress: Callable[[int], object] = lambda _: None,
) -> tuple[int, list[Problem]]:
    """Write the usable pairs of a source into a new folder."""
    if to not in FORMATS:
        raise InputError(f"--to {to!r}", got="an unknown format", expected=", ".join(FORMATS), hint="Name one of them.")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(
            f"{out}", got="something that is there", expected="a new or empty folder", hint="Choose another --out DIR."
        )
    pairs = source.pairs()
    make_folder(out)
    problems = list(source.problems)
    items = _items(source, pairs, problems, progress)
    writers: dict[str, Callable[[Path, Iterator[Item], int], int]] = {
        "webdataset": _write_tars,
        "parquet": _write_parquet,
        "imagefolder": _write_folder,
    }
    return writers[to](out, items, shard), problems


def _items(
    source: Source, pairs: pl.DataFrame, problems: list[Problem], progress: Callable[[int], object]
) -> Iterator[Item]:
    """Yield the pairs whose pictures decode, in the order in which they lie on the disk."""
    references = pairs["image"].to_list()
    order, number = source.storage_order(references), 0
    for start in range(0, len(order), _BLOCK):
        block = order[start : start + _BLOCK]
        for place, data in zip(block, source.read([references[place] for place in block]), strict=True):
            row = pairs.row(place, named=True)
            try:
                decode(data, 32)
            except DecodeError as error:
                problems.append(Problem(source_name(source.section), row["key"], error.reason))
                continue
            yield Item(number, row, data, _ENDINGS[read_header(data).format])
            number += 1
        progress(len(block))


def _shards(items: Iterator[Item], shard: int) -> Iterator[tuple[int, list[Item]]]:
    """Cut the items into shards, and each shard into blocks that fit in memory: shard number and block."""
    block: list[Item] = []
    for item in items:
        if block and (len(block) == _BLOCK or item.number % shard == 0):
            yield block[0].number // shard, block
            block = []
        block.append(item)
    if block:
        yield block[0].number // shard, block


def _described(row: dict[str, Any]) -> dict[str, Any]:
    """Return what is said of a pair beside its picture; what a source has not is left out."""
    own: dict[str, Any] = {"captions": row["captions"], "uid": row["uid"], "key": row["key"]}
    own |= {"group": row["group"]} if row["group"] != row["uid"] else {}
    return own | {name: row[name] for name in ("label", "sublabel", "credit", "objects") if row[name]}


def _json(value: object) -> bytes:
    # ASCII only: no caption can act on a terminal that shows the file
    return json.dumps(value, ensure_ascii=True, sort_keys=True).encode()


def _grouped(items: Iterator[Item], shard: int) -> Iterator[tuple[int, Iterator[list[Item]]]]:
    """Yield each shard with an iterator over its blocks; a shard's blocks must be used up before the next one."""
    pieces = _shards(items, shard)
    held = next(pieces, None)
    while held is not None:
        number = held[0]

        def of_this_shard() -> Iterator[list[Item]]:
            nonlocal held
            while held is not None and held[0] == number:  # noqa: B023  used up before `number` changes
                yield held[1]
                held = next(pieces, None)

        yield number, of_this_shard()


def _write_tars(out: Path, items: Iterator[Item], shard: int) -> int:
    written = 0
    for number, blocks in _grouped(items, shard):
        with (
            atomic_file(out / f"{number:05d}.tar") as stream,
            tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as tar,
        ):
            for item in (item for block in blocks for item in block):
                first = item.row["captions"][0]
                _add(tar, f"{item.number:09d}.json", _json(_described(item.row)))
                # the text is for readers that want one caption; ours take those of the JSON
                if first == first.removesuffix("\n").removesuffix("\r").removeprefix("\ufeff"):
                    _add(tar, f"{item.number:09d}.txt", first.encode())
                _add(tar, f"{item.number:09d}.{item.ending}", item.picture)
                written += 1
    return written


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    """Add a member whose header holds neither a time nor an owner: the same bytes every time."""
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(data), 0o644
    tar.addfile(member, io.BytesIO(data))


_COLUMNS = {
    "uid": pa.string(),
    "key": pa.string(),
    "image": pa.struct([("bytes", pa.binary()), ("path", pa.string())]),
    "captions": pa.list_(pa.string()),
    "group": pa.string(),
    "label": pa.string(),
    "sublabel": pa.string(),
    "credit": pa.string(),
    "objects": pa.list_(pa.string()),
}


def _write_parquet(out: Path, items: Iterator[Item], shard: int) -> int:
    written, schema = 0, pa.schema(list(_COLUMNS.items()))
    for number, blocks in _grouped(items, shard):
        # images are compressed already
        with (
            atomic_file(out / f"{number:05d}.parquet") as stream,
            pq.ParquetWriter(stream, schema, compression="none", write_statistics=False) as writer,
        ):
            for block in blocks:
                rows = [
                    {**item.row, "image": {"bytes": item.picture, "path": f"{item.number:09d}.{item.ending}"}}
                    for item in block
                ]
                writer.write_table(pa.Table.from_pylist(rows, schema=schema))
                written += len(rows)
    return written


def _write_folder(out: Path, items: Iterator[Item], shard: int) -> int:
    written = 0
    with atomic_file(out / "metadata.jsonl") as table:
        for number, blocks in _grouped(items, shard):
            for item in (item for block in blocks for item in block):
                name = f"{number:05d}/{item.number:09d}.{item.ending}"
                with atomic_file(out / name) as stream:
                    stream.write(item.picture)
                table.write(_json({"file_name": name, **_described(item.row)}) + b"\n")
                written += 1
    return written
