"""Write pairs as webdataset tars, Parquet or an image folder, without re-encoding the images."""

import io
import itertools
import json
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from clipmem.base.atomic import atomic_file, atomic_folder, is_free
from clipmem.base.progress import Quiet, Reporter
from clipmem.base.require import require, require_one_of
from clipmem.data.decoding import DecodeError, decode, read_header
from clipmem.data.quarantine import source_name
from clipmem.data.sources.base import Source

FORMATS = ("webdataset", "parquet", "imagefolder")
SHARD = 10_000
_BLOCK = 256
_ENDINGS = {"JPEG": "jpg", "PNG": "png", "WEBP": "webp", "GIF": "gif", "BMP": "bmp", "TIFF": "tif"}


class Item(NamedTuple):
    """A pair to write: its number, its row of the pair table, the encoded image and its file extension."""

    number: int
    row: dict[str, Any]
    image: bytes
    ending: str


def export_pairs(source: Source, out: Path, to: str, *, shard: int = SHARD, reporter: Reporter | None = None) -> int:
    """Write the usable pairs of a source into a new folder, of which an error leaves nothing; return their number.

    The others are in `source.ledger`.
    """
    require_one_of("--to", to, FORMATS)
    free, hint = is_free(out) and not out.is_file(), "Choose another --out DIR."
    require(free, f"{out}", "an existing file or folder", "a new or empty folder", hint)
    pairs, reporter, started = source.pairs(), reporter or Quiet(), time.monotonic()
    source.check_outside(out, "--out")
    reporter.begin("export", pairs.height, "pairs")
    with atomic_folder(out) as partial:
        written = _WRITERS[to](partial, _items(source, pairs, reporter.advance), shard)
    reporter.end("export", time.monotonic() - started)
    return written


def _items(source: Source, pairs: pl.DataFrame, progress: Callable[[int], object]) -> Iterator[Item]:
    references = pairs["image"].to_list()
    order, number = source.storage_order(references), 0
    for start in range(0, len(order), _BLOCK):
        block = order[start : start + _BLOCK]
        for place, data in zip(block, source.read([references[place] for place in block]), strict=True):
            row = pairs.row(place, named=True)
            try:
                decode(data, 32)
            except DecodeError as error:
                source.ledger.drop(source_name(source.section), row["key"], error.reason)
                continue
            yield Item(number, row, data, _ENDINGS[read_header(data).format])
            number += 1
        progress(len(block))


def _shards(items: Iterator[Item], shard: int) -> Iterator[tuple[int, Iterator[Item]]]:
    """Group the items into shards, each to be consumed before the next."""
    return itertools.groupby(items, key=lambda item: item.number // shard)


def _described(row: dict[str, Any]) -> dict[str, Any]:
    own: dict[str, Any] = {"captions": row["captions"], "uid": row["uid"], "key": row["key"]}
    own |= {"group": row["group"]} if row["group"] != row["uid"] else {}
    return own | {name: row[name] for name in ("label", "sublabel", "credit", "objects", "role") if row[name]}


def _json(value: object) -> bytes:
    # ASCII only, so that captions cannot control a terminal
    return json.dumps(value, ensure_ascii=True, sort_keys=True).encode()


def _write_tars(out: Path, items: Iterator[Item], shard: int) -> int:
    written = 0
    for number, own in _shards(items, shard):
        with (
            atomic_file(out / f"{number:05d}.tar") as stream,
            tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as tar,
        ):
            for item in own:
                first = item.row["captions"][0]
                _add(tar, f"{item.number:09d}.json", _json(_described(item.row)))
                # for readers of one caption; clipmem reads the JSON
                if first == first.removesuffix("\n").removesuffix("\r").removeprefix("\ufeff"):
                    _add(tar, f"{item.number:09d}.txt", first.encode())
                _add(tar, f"{item.number:09d}.{item.ending}", item.image)
                written += 1
    return written


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    """Add a member without time and owner, so that the bytes are reproducible."""
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(data), 0o644
    tar.addfile(member, io.BytesIO(data))


_LIST = pa.list_(pa.string())
_IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
_COLUMNS = ("uid", "key", "image", "captions", "group", "label", "sublabel", "credit", "objects", "role")
_SCHEMA = pa.schema(
    [(name, {"image": _IMAGE, "captions": _LIST, "objects": _LIST}.get(name, pa.string())) for name in _COLUMNS]
)


def _write_parquet(out: Path, items: Iterator[Item], shard: int) -> int:
    written = 0
    for number, own in _shards(items, shard):
        with (
            atomic_file(out / f"{number:05d}.parquet") as stream,
            pq.ParquetWriter(stream, _SCHEMA, compression="none", write_statistics=False) as writer,
        ):
            while block := list(itertools.islice(own, _BLOCK)):
                rows = [
                    {**item.row, "image": {"bytes": item.image, "path": f"{item.number:09d}.{item.ending}"}}
                    for item in block
                ]
                writer.write_table(pa.Table.from_pylist(rows, schema=_SCHEMA))
                written += len(rows)
    return written


def _write_folder(out: Path, items: Iterator[Item], shard: int) -> int:
    written = 0
    with atomic_file(out / "metadata.jsonl") as table:
        for item in items:
            name = f"{item.number // shard:05d}/{item.number:09d}.{item.ending}"
            with atomic_file(out / name) as stream:
                stream.write(item.image)
            table.write(_json({"file_name": name, **_described(item.row)}) + b"\n")
            written += 1
    return written


_WRITERS: dict[str, Callable[[Path, Iterator[Item], int], int]] = {
    "webdataset": _write_tars,
    "parquet": _write_parquet,
    "imagefolder": _write_folder,
}
