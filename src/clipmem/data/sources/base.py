"""Base class and registry of data sources, detection of a format by its content, and what sources share.

They share tables in memory, and the output of cleaned data.

A new format is one class in one file, registered in `SOURCES` or under the entry-point group `clipmem.sources`.
"""
# ruff: noqa: ARG002, ARG003  (a source does by default what needs no argument)

import os
import shutil
import tempfile
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar, NamedTuple, Protocol, runtime_checkable

import polars as pl

from clipmem.base.declared import own_settings
from clipmem.base.errors import InputError, did_you_mean, near_names, require, shorten, shorten_text
from clipmem.base.paths import explain_write_errors, make_folder, reading
from clipmem.base.registry import Registry
from clipmem.base.remote import AnyPath, is_remote
from clipmem.base.sections import DataSection, Section
from clipmem.data.skipped import Ledger, Problem, source_name
from clipmem.data.sources.path_probe import IMAGE_ENDINGS, PACKED, PathProbe
from clipmem.data.sources.records import CAPTIONS, IMAGES, Columns, Record, collect, named_columns, no_such_column

LAST = 100
Shards = tuple[DataSection, Mapping[str, AnyPath]]
ClassPrompts = tuple[Mapping[str, Sequence[str]] | None, Sequence[str]]  # names of each class, and templates
_WITH_COLUMNS = (".jsonl", ".csv", ".tsv", ".parquet")
_TABLES = (*_WITH_COLUMNS, ".json", ".txt", ".token")
_MOST_FILES = 40  # tables in a folder that are looked at


@dataclass(frozen=True)
class Cleaned:
    """A new folder for a copy of some data without suspect records.

    Attributes:
        folder: Where to write, new and empty.
        changes: Change of a record by its place (see `Part.place`): its new caption, or "" to leave it out. Records
            that are not listed stay as they are, unusable ones too.
        seconds: Unusable records that went with a removed one, which were of the same name.
    """

    folder: Path
    changes: Mapping[str, str]
    seconds: list[str] = field(default_factory=list)

    def removes(self, position: str) -> bool:
        """Return whether a record is left out."""
        return self.changes.get(position) == ""

    def copy(self, file: AnyPath, name: str) -> None:
        """Copy a file, or a link to none, unless that name is written; others belong to unusable records."""
        target = self.folder / name
        try:
            original = file.open("rb") if file.is_file() and not target.exists() else None
        except (OSError, ValueError):
            return
        if isinstance(file, Path) and file.is_symlink() and not file.exists() and not target.is_symlink():
            make_folder(target.parent)
            target.symlink_to(file.readlink())
        elif original is not None:
            # not flushed to disk one by one: the whole folder gets its name last
            make_folder(target.parent)
            with original, explain_write_errors(target), target.open("wb") as new:
                shutil.copyfileobj(original, new, 1 << 20)

    def copy_image(self, root: AnyPath, path: str) -> None:
        """Copy the image that a table names by a path relative to `root`; absolute paths stay valid without a copy."""
        if not path or "\0" in path or PurePosixPath(path).is_absolute():
            return
        hint = "Write absolute paths into the table, or convert it: clipmem export pairs --to parquet."
        got, expected = "a path that leaves the folder of the images", "paths inside it, or absolute ones"
        require(".." not in PurePosixPath(path).parts, f"image {shorten(path)}", got, expected, hint)
        self.copy(root / path, path)


@runtime_checkable
class Table(Protocol):
    """A table in memory that is none of polars: a pandas DataFrame or a `datasets.Dataset`."""

    def __len__(self) -> int: ...

    def to_parquet(self, path: Any, /) -> Any:
        """Write it to a file."""


InMemory = pl.DataFrame | Table


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
        for column in frame.iter_columns():  # of texts, the first of which is the path of a file
            first = column[0] if column.dtype == pl.String and len(column) else None
            if first is not None and len(first) < 1024 and "\0" not in first and Path(first).is_file():
                paths = [None if text is None else str(Path(text).absolute()) for text in column]
                frame = frame.with_columns(pl.Series(column.name, paths, dtype=pl.String))
        frame.write_parquet(self.path)


class Source(ABC):
    """A set of pairs on disk.

    Args:
        section: The recipe's `[data]` section.
        shard: The only file to read, of those in `shards`; "" for `shards` of several, which are then not checked.

    Attributes:
        name: Value of `data.source`.
        summary: What it reads, in one line.
        Settings: Its table in `[data]`, if it has one.
        uses: Keys of `[data]` that it uses, in addition to `source` and `path`.
        rank: Order of detection, lowest (most specific) first.
        remote: Whether it reads paths behind a protocol, such as s3://, too.
        sharded: Whether it takes a shard.
        ledger: Counts and problems of the records; complete once `pairs` has returned.
        title: Name of the data in messages and documents: the path as the user gave it.
        table: The temporary file of a table in memory, or None.
        reason: Why the data are of this format, as `detect` says.
        outputs: Folders that must not be inside the data, and their options.
    """

    name: ClassVar[str] = ""
    summary: ClassVar[str] = ""
    Settings: ClassVar[type[Section] | None] = None
    uses: ClassVar[frozenset[str]] = frozenset()
    rank: ClassVar[int] = LAST
    remote: ClassVar[bool] = False
    sharded: ClassVar[bool] = False

    def __init__(self, section: DataSection, shard: str | None = None) -> None:
        self.section, self.shard = section, shard
        self.settings: Any = own_settings(section, self.name) or (self.Settings and self.Settings())
        self.ledger = Ledger()
        self.title = source_name(section)
        self.table: TableFile | None = None
        self.reason, self.outputs = "", dict[Path, str]()

    @classmethod
    def recognize(cls, probe: PathProbe) -> str:
        """Return why the data at a path are of this format; "" if they are not (see `detect`)."""
        return ""

    @classmethod
    def class_prompts(cls, labels: str, section: DataSection) -> ClassPrompts | None:
        """Return the class names of the column `labels` (None: the labels themselves) and prompts, if it ships any."""
        return None

    def shards(self) -> Shards:
        """Return the section that opens a shard, and the files that can be read alone, by name; by default none."""
        return self.section, {}

    @property
    def problems(self) -> list[Problem]:
        """The problems in `ledger`."""
        return self.ledger.problems

    @property
    def columns(self) -> Columns | None:
        """The columns of a table source; by default None."""
        return None

    @abstractmethod
    def records(self) -> Iterator[Record]:
        """Yield the records in the source's order, with few images in memory at a time.

        Counts each in `ledger.read`, and leaves out unusable ones with `ledger.leave_out`.
        """

    @abstractmethod
    def read(self, references: Sequence[str]) -> list[bytes]:
        """Return the encoded images of some references; fastest in `storage_order`."""

    def pairs(self, watch: Callable[[Record], object] = lambda _: None) -> pl.DataFrame:
        """Return the usable pairs as a `pairs` table, sorted by uid; other records are listed in `problems`.

        `watch` is called with every record.

        Raises:
            InputError: The data cannot be read, or no record can be used; a shard may be without a pair.
        """
        self.ledger.clear()
        subject = repr(self.section.path)
        with reading_data(self.section):
            table = collect(self.records(), self.ledger, subject=subject, watch=watch)
        if not self.shard:
            self.ledger.require_pairs(subject)
        for out, option in [*self.outputs.items()]:
            self.refuse(option, out)
        return table

    def refuse(self, option: str, out: Path) -> None:
        """Raise an `InputError` if an output is inside the data; `pairs` does so if it is among their images.

        Results may be beside a table of captions, even if images are there, too.
        """
        self.outputs.pop(out, None)
        table, folders = Path(os.path.normpath(Path(self.section.path).absolute())), self.ledger.folders
        near = [folder for folder in folders if table.parent in Path(folder).parents]
        images = {Path(folder).resolve() for folder in folders | ({os.path.commonpath(near)} if near else set())}
        inside = images - {(beside := table.resolve().parent), *beside.parents}
        inside |= {Path(name).resolve() for name in (self.section.path, self.section.image_root) if name}
        outside = is_remote(self.section.path) or not inside & {out.resolve(), *out.resolve().parents}
        require(outside, f"{option} {out}", "a folder inside the data", "one outside of them", "Choose another folder.")
        self.outputs[out] = option

    def storage_order(self, references: Sequence[str]) -> list[int]:
        """Return the positions of references in the order of their images on disk."""
        return list(range(len(references)))

    def write_kept(self, cleaned: Cleaned) -> str | None:
        """Write the data in the same format without some records, or with other captions; called after `pairs`.

        Images keep their bytes, and unusable records stay.

        Returns:
            The path to open, relative to the new folder; None, the default, if this format is not written: the
            pairs then become Parquet (see `write_cleaned`).
        """
        return None

    def credits(self) -> list[str]:
        """Return the required attributions."""
        return []


class Wrapped(Source):
    """A source on top of another one, with its records and images."""

    def __init__(self, source: Source, section: DataSection) -> None:
        self.source, self.section, self.shard = source, section, source.shard
        self.settings, self.ledger, self.title, self.table = source.settings, source.ledger, source.title, source.table
        self.outputs = source.outputs

    @property
    def columns(self) -> Columns | None:
        return self.source.columns

    def shards(self) -> Shards:
        return self.source.shards()

    def records(self) -> Iterator[Record]:
        return self.source.records()

    def read(self, references: Sequence[str]) -> list[bytes]:
        return self.source.read(references)

    def storage_order(self, references: Sequence[str]) -> list[int]:
        return self.source.storage_order(references)

    def credits(self) -> list[str]:
        return self.source.credits()


SOURCES: Registry[Source] = Registry("data source", Source, group="sources")  # pyright: ignore[reportAbstractUsage]


def reading_data(section: DataSection) -> AbstractContextManager[None]:
    """Convert errors of the operating system while the data of a section are read."""
    return reading(f"[data] path {section.path}", expected="a readable file or folder")


def open_named(section: DataSection, shard: str | None = None) -> Source:
    """Open the source `section.source` (see `Source`); keys that it does not use must have their defaults."""
    kind = SOURCES[section.source]
    for name, entry in DataSection.model_fields.items():
        value = getattr(section, name)
        uses = ", ".join(f"data.{key}" for key in DataSection.model_fields if key in kind.uses) or "no other key"
        got = f"{value!r} with the source {section.source!r}, which does not use it"
        hint = f"Remove data.{name}: {section.source!r} uses data.path and {uses}."
        fits = value == entry.default or name in {"source", "path", "flaws", *kind.uses}
        require(fits, f"[data] {name}", got, f"the default, {entry.default!r}", hint)
    got, hint = f"{section.source!r} at {shorten_text(section.path)}", "Copy the data to this machine first."
    is_read = kind.remote or not any(map(is_remote, section.path.split("::")))
    require(is_read, "[data] path", got, "tars or Parquet, which are read remotely", hint)
    return kind(section, shard) if kind.sharded else kind(section)


def require_data(exists: object, section: DataSection, content: str) -> None:
    """Raise an `InputError` unless the data exist."""
    got = f"{section.path!r}, which is not of this format or does not exist"
    require(section.path and exists, "[data] path", got, content, "Set data.path.")


def require_split(split: str, splits: Iterable[str], *, kind: str = "split") -> None:
    """Raise an `InputError` unless the data have the split `data.split`; empty is all."""
    names = sorted(set(splits))
    known_one, hint = not split or split in names, did_you_mean(split, names, kind=kind)
    require(known_one, "[data] split", f"{split!r}", f"one of {names}", hint)


def image_gone(reference: str, got: str) -> InputError:
    """Return the error for an image that is missing after the pairs were listed."""
    hint = "Restore the data, or start a study in another run folder."
    return InputError(f"image {reference!r}", got=got, expected="unchanged data", hint=hint)


class Detection(NamedTuple):
    """Source, path to open (of the table if a folder has one), and reason."""

    format: str
    path: str
    reason: str


def detect(path: str, section: DataSection | None = None) -> Detection:
    """Detect the format of the data at a path, or in a folder of the only table there that has one."""
    probe = PathProbe(path, section)
    if detection := _recognized(probe):
        return detection
    names = [name for name in probe.with_suffix(*_TABLES) if name.count("/") < 2]
    tables = [PathProbe(str(probe.path / name), probe.section) for name in names[:_MOST_FILES]]
    inside = [detection for table in tables if (detection := _recognized(table))]
    got = f"{path!r}, a folder with {len(inside)} data sets: {', '.join(match.path for match in inside[:4])}"
    require(len(inside) < 2, "[data] path", got, "one data set", "Set data.path to one of these files.")
    if inside:
        return inside[0]
    for key, name in named_columns(probe.section).items():
        if probe.names and name not in probe.names:
            raise no_such_column(key, name, probe.names, source=path)
    tables = [table for table in tables or [probe] if table.is_file and table.path.suffix.lower() in _WITH_COLUMNS][:2]
    got = "; ".join(f"{candidate.text!r}, {candidate.describe()}" for candidate in dict.fromkeys([probe, *tables]))
    expected = "an image folder, CSV, JSON lines, COCO or Karpathy JSON, Flickr's text, tars, Parquet, or a folder "
    expected += "saved by datasets"
    if tables or probe.columns:
        expected = "an image column (such as image or filepath) and a caption column (such as caption or title)"
    elif probe.is_dir and probe.with_suffix(*IMAGE_ENDINGS):
        expected = "captions: metadata.csv (file_name, caption), or a .txt or .json file next to each image"
    usual = (*IMAGES, *CAPTIONS)
    names = [name for table in tables for name in table.names if name.lower() not in usual]
    near = " and ".join([f"{match!r} for {name!r}" for name in names for match in near_names(name, usual)[:1]][:2])
    hint = "Set data.image_column and data.caption_column, or data.source; see docs/data.md for all formats."
    hint = f"Did you mean {near}? {hint}" if near else hint
    if not probe.is_file and not probe.is_dir:
        hint = "Check the path; for a data set of the Hugging Face hub, use hf-hub:OWNER/NAME."
    elif probe.head.startswith(PACKED) or probe.with_suffix(".gz", ".bz2", ".xz", ".zst"):
        hint = "Decompress it first, for example with gunzip."
    raise InputError("[data] path", got=got, expected=expected, hint=hint)


def _recognized(probe: PathProbe) -> Detection | None:
    for name in sorted(SOURCES, key=lambda name: SOURCES[name].rank):
        if reason := SOURCES[name].recognize(probe):
            return Detection(name, probe.text, reason)
    return None
