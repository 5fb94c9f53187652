"""Write pairs as webdataset tars, Parquet or an image folder, or a data set without suspect pairs as it came.

Images are not re-encoded. The input is only read. Cleaned data, in the format that it came in or as Parquet, is read
again before it gets its name: a pair or record too many or too few is an error, and nothing is written.
"""

import io
import itertools
import json
import tarfile
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple, cast

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from clipmem.base import slices
from clipmem.base.errors import InputError, RunError, require, require_one_of, shorten
from clipmem.base.paths import atomic_file, atomic_folder, atomic_write, check_place, is_free
from clipmem.base.progress import Advance, Quiet, Reporter
from clipmem.base.sections import DataSection
from clipmem.data.decoding import DecodeError, decode, read_header
from clipmem.data.skipped import source_name
from clipmem.data.sources import open_data
from clipmem.data.sources.base import SOURCES, Cleaned, InMemory, Source, Wrapped
from clipmem.data.sources.records import Part, Record

FORMATS = ("webdataset", "parquet", "imagefolder")
SHARD = 10_000
_BLOCK = 256
_ENDINGS = {"JPEG": "jpg", "PNG": "png", "WEBP": "webp", "GIF": "gif", "BMP": "bmp", "TIFF": "tif"}
_LIST = pa.list_(pa.string())
_IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
_COLUMNS = ("uid", "key", "image", "captions", "group", "label", "sublabel", "credit", "objects", "role")
_SCHEMA = pa.schema(
    [(name, {"image": _IMAGE, "captions": _LIST, "objects": _LIST}.get(name, pa.string())) for name in _COLUMNS]
)


class Item(NamedTuple):
    """A pair to write: its number, its row of the pair table, the encoded image and its file extension."""

    number: int
    row: Mapping[str, object]
    image: bytes
    ending: str


def export_pairs(source: Source, out: Path, to: str, *, shard: int = SHARD, reporter: Reporter | None = None) -> int:
    """Write the usable pairs of a source into a new folder, of which an error leaves nothing; return their number.

    The others are in `source.ledger`.
    """
    require_one_of("--to", to, FORMATS)
    _require_free(out, f"{out}", "Choose another --out DIR.")
    source.refuse("--out", out)
    pairs, reporter, started = source.pairs(), reporter or Quiet(), time.monotonic()
    reporter.begin("export", pairs.height, "pairs")
    items = _items(source, pairs, reporter.advance)
    with atomic_folder(out) as partial:
        if to == "imagefolder":
            with atomic_file(partial / "metadata.jsonl") as table:
                for item in items:
                    name = f"{item.number // shard:05d}/{item.number:09d}.{item.ending}"
                    atomic_write(partial / name, item.image)
                    table.write(_json({"file_name": name, **_described(item.row)}) + b"\n")
        else:
            ending, write = (".tar", _write_tar) if to == "webdataset" else (".parquet", _write_parquet)
            for number, block in itertools.groupby(items, lambda item: item.number // shard):
                with atomic_file(partial / f"{number:05d}{ending}") as stream:
                    write(stream, block)
    reporter.end("export", time.monotonic() - started)
    return source.ledger.pairs


def _require_free(out: Path, subject: str, hint: str) -> None:
    free = is_free(out) and not out.is_file()
    require(free, subject, "an existing file or folder", "a new or empty folder", hint)


def _items(source: Source, pairs: pl.DataFrame, progress: Advance) -> Iterator[Item]:
    references = pairs["image"].to_list()
    order, number = source.storage_order(references), 0
    for block in (order[part] for part in slices(len(order), _BLOCK)):
        for index, data in zip(block, source.read([references[index] for index in block]), strict=True):
            row = pairs.row(index, named=True)
            try:
                decode(data, 32)
            except DecodeError as error:
                source.ledger.drop(source_name(source.section), row["key"], error.reason)
                continue
            yield Item(number, row, data, _ENDINGS[read_header(data).format])
            number += 1
        progress(len(block))


def _described(row: Mapping[str, object]) -> dict[str, object]:
    fields = {"captions": row["captions"], "uid": row["uid"], "key": row["key"]}
    fields |= {"group": row["group"]} if row["group"] != row["uid"] else {}
    return fields | {name: row[name] for name in ("label", "sublabel", "credit", "objects", "role") if row[name]}


def _json(value: object) -> bytes:
    # ASCII only, so that captions cannot control a terminal
    return json.dumps(value, ensure_ascii=True, sort_keys=True).encode()


def _write_tar(stream: IO[bytes], items: Iterator[Item]) -> None:
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for item in items:
            [first, *_] = cast(Sequence[str], item.row["captions"])
            # the text is for readers of one caption; clipmem reads the JSON
            plain = first == first.removesuffix("\n").removesuffix("\r").removeprefix("\ufeff")
            contents = {"json": _json(_described(item.row)), **({"txt": first.encode()} if plain else {})}
            for ending, data in (*contents.items(), (item.ending, item.image)):
                # without time and owner, so that the bytes are reproducible
                member = tarfile.TarInfo(f"{item.number:09d}.{ending}")
                member.size, member.mode = len(data), 0o644
                tar.addfile(member, io.BytesIO(data))


def _write_parquet(stream: IO[bytes], items: Iterator[Item]) -> None:
    with pq.ParquetWriter(stream, _SCHEMA, compression="none", write_statistics=False) as writer:
        while block := list(itertools.islice(items, _BLOCK)):
            images = [{"bytes": item.image, "path": f"{item.number:09d}.{item.ending}"} for item in block]
            rows = [{**item.row, "image": image} for item, image in zip(block, images, strict=True)]
            writer.write_table(pa.Table.from_pylist(rows, schema=_SCHEMA))


class Written(NamedTuple):
    """What was written, in pairs: read = kept + corrected + removed."""

    path: Path  # to open
    format: str  # name of the source that reads it
    same_format: bool  # whether the data came in it
    read: int
    kept: int
    corrected: int  # with another caption
    removed: int
    unusable: int  # records, which are in the output as they were; not in another format
    records: int  # of the input
    removed_records: int  # of the removed pairs, copies included

    def without(self, broken: int) -> "Written":
        """Return the counts with some kept pairs as unusable, because their images do not decode."""
        return self._replace(read=self.read - broken, kept=self.kept - broken, unusable=self.unusable + broken)


def check_output(source: Source, out: Path) -> None:
    """Raise an `InputError` unless a new folder can be written at `out`, outside of the data."""
    hint = "Choose another folder."
    _require_free(out, f"--write {out}", hint)
    source.refuse("--write", out)
    try:
        check_place(out.resolve().parent)
    except InputError as error:
        raise InputError(f"--write {out}", got=error.got, expected=error.expected, hint=hint) from error


def write_cleaned(
    source: Source, out: Path, removed: Collection[str], captions: Mapping[str, str] | None = None
) -> Written:
    """Write a copy of the data into the new folder `out`: in the same format, or as Parquet with images.

    Parquet has the columns of `export_pairs`, so every pair keeps its uid and the key of its record.

    Args:
        source: The data.
        out: A new or empty folder. An unfinished output of an earlier call is written anew.
        removed: Pairs to leave out, with other records of the same image and captions.
        captions: New caption of pairs, by uid.

    Raises:
        InputError: A uid is not in the data, no pair stays, the format does not hold a caption, or the place is wrong.
        RunError: The disk is full, or the output does not hold what it should; nothing is left of it.
    """
    check_output(source, out)
    change = {**(captions or {}), **dict.fromkeys(removed, "")}
    places, gone = dict[str, str](), 0
    corrected = dict[str, tuple[str, str]]()  # uid after the change: record and caption

    def watch(record: Record) -> None:
        nonlocal gone
        uid = record.uid()
        if uid not in change:
            return
        places.update((part.place or record.key, change[uid]) for part in record.parts)
        if change[uid] and not isinstance(record.image, str):
            corrected[record.image.uid([change[uid]])] = record.key, change[uid]
        gone += 0 if change[uid] else len(record.parts)

    uids = set(source.pairs(watch)["uid"])
    before, unusable = source.ledger.read, source.ledger.left_out
    unknown = [uid for uid in change if uid not in uids]
    got = f"unknown uid {', '.join(map(shorten, unknown[:1]))} ({len(unknown):,} of {len(change):,})"
    require(not unknown, "pairs to remove", got, "uids of the data's pairs", "Use a list made from the same data.")
    expected = corrected.keys() | uids - change.keys()
    require(expected, "pairs to remove", f"all {len(uids):,} pairs", "pairs that stay", "Remove fewer.")
    with atomic_folder(out) as partial:
        name = source.write_kept(cleaned := Cleaned(partial, places))
        same = name is not None
        gone, unusable = gone + len(cleaned.seconds), unusable - len(cleaned.seconds)
        lost = 0  # images that do not decode, which the export leaves out
        if not same:
            export_pairs(_Changed(source, change), partial, "parquet")
            lost = source.ledger.undecodable
        # opened as the input was; exported Parquet has columns of its own
        kind, settings = (source.name, source.section) if same else ("parquet", DataSection())
        about = {"path": f"{partial / (name or '')}", "image_root": "", "source": kind}
        opened = SOURCES[kind](settings.model_copy(update=about))
        written, records = set(opened.pairs()["uid"]), opened.ledger.read + gone if same else before
        missing, extra = expected - written, written - expected
        if extra or len(missing) != lost or records != before:
            for key, caption in [corrected[uid] for uid in sorted(missing & corrected.keys())][:1]:
                got, wanted = f"{shorten(caption)}, which reads back differently", "a caption that the format can hold"
                hint = "Give another caption, such as one line, or convert the data: clipmem export pairs --to parquet."
                raise InputError(f"new caption of {shorten(key)}", got=got, expected=wanted, hint=hint)
            told = f"{len(missing):,} pairs are missing, {len(extra):,} are new, {records:,} of {before:,} records"
            raise RunError(f"{out}: {told}; nothing was written. Convert the data: clipmem export pairs --to parquet.")
    dropped = list(change.values()).count("")
    counts = (len(uids), len(uids) - len(change), len(change) - dropped, dropped, unusable, before, gone)
    return Written(out / (name or ""), kind, same, *counts).without(lost)


def clean(table: Any, suspects: pl.DataFrame, **keys: Any) -> Any:
    """Return a table in memory without the rows of its suspects.

    Args:
        table: A polars or pandas DataFrame, or a `datasets.Dataset`, as given to `clipmem.curate` or `load_pairs`.
        suspects: What `clipmem.curate` returned for it, or rows of that. Suspects are those with `is_label_issue`.
        keys: Keys of `[data]` that `load_pairs` was given.

    Returns:
        The other rows, in their order, as a table of the same kind. Rows that are no usable pair stay.

    Raises:
        InputError: `table` is no such table; or the suspects are those of another one, or all of its pairs.

    Example:
        >>> clean(table, clipmem.curate(table))  # doctest: +SKIP
    """
    hint = "For files, use `clipmem curate --write`."
    require(isinstance(table, InMemory), "table", shorten(table), "a DataFrame or a datasets.Dataset", hint)
    columns, hint = {"uid", "is_label_issue"} <= {*suspects.columns}, "Use what clipmem.curate returns."
    require(columns, "suspects", shorten(suspects.columns), "uid and is_label_issue", hint)
    rows: dict[str, list[int]] = {}

    def watch(record: Record) -> None:
        rows.setdefault(record.uid(), []).extend(int(part.place or record.key) for part in record.parts)

    source = open_data(table, keys)
    uids, removed = set(source.pairs(watch)["uid"]), suspects.filter("is_label_issue")["uid"].to_list()
    got = f"{len({*removed} - uids):,} unknown uids"
    require(uids.issuperset(removed), "suspects", got, "uids of the table's pairs", "Use suspects of the same table.")
    require(len({*removed}) < len(uids), "suspects", f"all {len(uids):,} pairs", "pairs that stay", "Name fewer.")
    dropped = {row for uid in removed for row in rows[uid]}
    stay = [row for row in range(len(table)) if row not in dropped]
    if hasattr(table, "iloc"):
        return table.iloc[stay]
    return table.select(stay) if hasattr(table, "cast_column") else table[stay]


class _Changed(Wrapped):
    """A source without some pairs, and with other captions; unusable records stay in the list of problems."""

    def __init__(self, source: Source, change: Mapping[str, str]) -> None:
        super().__init__(source, source.section)
        self._change = change

    def records(self) -> Iterator[Record]:
        for record in self.source.records():
            change = self._change.get(record.uid())
            if change == "":
                self.ledger.read -= len(record.parts)
                continue
            if change:
                record.parts = [Part(part.key, [change]) for part in record.parts]
            yield record
