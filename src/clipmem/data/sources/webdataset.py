"""Tars of images and captions (webdataset), as written by img2dataset and read by open_clip.

Members with the same name up to the first dot are a pair; if all images and texts of a key have further dots
(`photo.v2.png` and `photo.v2.txt`), up to the last dot. Captions are, in this order: the JSON key
`data.caption_column` if set, a JSON list `captions`, the whole `.txt`, the JSON's `caption`. Images and texts without a
pair are listed; other members are counted. Shards can be given as `{0000..0123}` ranges and `::` lists.
"""

import contextlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from io import BufferedIOBase, BufferedReader
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import polars as pl

from clipmem.base.errors import InputError, require
from clipmem.base.paths import atomic_file, write_json
from clipmem.base.sections import DataSection
from clipmem.data.decoding import MAX_BYTES
from clipmem.data.sources.base import SOURCES, Cleaned, Source, image_gone, require_data
from clipmem.data.sources.imagefolder import (
    BROKEN_JSON,
    MOST_TEXT,
    TEXT_UNUSED,
    corrected_text,
    decode_text,
    json_captions,
)
from clipmem.data.sources.path_probe import IMAGE_ENDINGS, PACKED, PathProbe, parse_json
from clipmem.data.sources.records import (
    KEYS,
    MANY_BYTES,
    NO_CAPTION,
    NO_IMAGE,
    KeysSeen,
    Part,
    Record,
    about,
    examine,
    listed_captions,
    named_columns,
    read_file,
)
from clipmem.data.sources.tar import Member, TarError, copy_members, is_tar, members

BROKEN_TAR = "broken or truncated tar"
FEWER = "fewer images than in its _stats.json"
SECOND = "second image or text of the same kind and key"
EXTRA = "image or text with the key of another pair"
_KINDS = tuple(name[1:] for name in IMAGE_ENDINGS)
_TEXTS = ("txt", "json")
_BUFFER = 1 << 18
_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")
_CHOICE = re.compile(r"\{([^{}]*,[^{}]*)\}")
_MOST_SHARDS = 1_000_000


@dataclass
class _Sample:
    """The members of one pair read so far, and their bytes while available."""

    key: str
    image: Member | None = None
    texts: dict[str, Member] = field(default_factory=dict)
    data: dict[int, bytes] = field(default_factory=dict)
    reason: str = ""
    spare: list[tuple[Member, str]] = field(default_factory=list)
    dotted: list[Member] = field(default_factory=list)

    def add(self, member: Member, kind: str, stream: BufferedIOBase | None = None) -> None:
        """Add a member, and read it if a stream is given."""
        if member.problem or member.size > (MOST_TEXT if kind in _TEXTS else MAX_BYTES):
            self.reason = self.reason or member.problem or MANY_BYTES
            return
        if self.image is not None if kind in _KINDS else kind in self.texts:
            self.spare.append((member, SECOND))
            return
        if kind in _KINDS:
            self.image = member
        else:
            self.texts[kind] = member
        if stream is not None:
            self._read(stream, member)

    def _read(self, stream: BufferedIOBase, member: Member) -> None:
        stream.seek(member.offset)
        self.data[member.offset] = stream.read(member.size)

    def split(self) -> "list[_Sample]":
        """Return the sample, or one per name up to the last dot if all members have further dots."""
        if self.image or self.texts or self.reason or not self.dotted:
            self.spare += [(member, EXTRA) for member in self.dotted]
            return [self]
        samples: dict[str, _Sample] = {}
        for member in self.dotted:
            stem, _, kind = member.name.rpartition(".")
            samples.setdefault(stem, _Sample(stem)).add(member, kind.lower())
        return list(samples.values())

    def join(self, other: "_Sample") -> None:
        """Add members of the same pair from elsewhere in the tar."""
        members = [*other.texts.items(), *(((_KINDS[0], other.image),) if other.image else ())]
        for kind, member in members:
            self.add(member, kind)
        self.spare += other.spare
        self.reason = self.reason or other.reason

    def read_missing(self, stream: BufferedIOBase) -> None:
        """Read the members whose bytes are not available."""
        for member in (self.image, *self.texts.values()):
            if member is not None and member.offset not in self.data:
                self._read(stream, member)

    @property
    def complete(self) -> bool:
        return self.image is not None and bool(self.texts)


@SOURCES.register("webdataset")
class WebdatasetSource(Source):
    """A tar, a folder of tars, a range or a list of tars."""

    summary = "Tars of images and captions, as written by img2dataset."
    uses = KEYS - {"image_column"}
    rank = 20

    def __init__(self, section: DataSection) -> None:
        super().__init__(section)
        self._base, self._shards = find_shards(section)
        for name in self._shards:
            _check_is_tar(self._base / name)

    @classmethod
    def recognize(cls, probe: PathProbe) -> str:
        if probe.is_file:
            return "a tar" if is_tar(probe.head) else ""
        if probe.is_dir:
            tars = probe.with_suffix(".tar")
            return f"a folder with {len(tars):,} tars" if tars else ""
        return "a range or list of tars" if is_list(probe.text) and ".tar" in probe.text else ""

    def records(self) -> Iterator[Record]:
        """Yield one record per pair, shard by shard."""
        keys = KeysSeen(self.section)
        for name in self._shards:
            failed = self._failed(name)
            images = 0
            for sample in self._samples(name):
                images += sample.image is not None
                for member, reason in sample.spare:
                    self.ledger.read += 1
                    self.ledger.leave_out(name, member.name, reason)
                if sample.key in failed:
                    self.ledger.read -= 1  # the table's row is that record
                else:
                    yield self._record(name, sample, keys)
            self._check_stats(name, images)
        keys.check(f"the JSON of the tars of {self.section.path}")
        if self._base != Path():
            self._count_others()

    def _count_others(self) -> None:
        probe = PathProbe(self.section.path)
        stems = {name.removesuffix(".tar") for name in self._shards}
        used = {f"{stem}{end}" for stem in stems for end in (".tar", ".parquet", "_stats.json")}
        probe.count_others(self.ledger, probe.all_files(), used)

    def _samples(self, shard: str) -> Iterator[_Sample]:
        """Yield the samples of a shard, those whose members are not contiguous last."""
        loose: dict[str, _Sample] = {}
        with BufferedReader((self._base / shard).open("rb", buffering=0), _BUFFER) as stream:
            current: _Sample | None = None
            try:
                for member in members(stream):
                    key, kind = split_name(member.name)
                    last = kind.rpartition(".")[2]
                    if last not in _KINDS and last not in _TEXTS:
                        if member.problem:
                            self.ledger.note(shard, member.name, member.problem)
                        else:
                            self.ledger.ignore(member.name)
                        continue
                    if current is None or key != current.key:
                        if current is not None:
                            yield from self._closed(current, loose, stream)
                        current = _Sample(key)
                    if last == kind:
                        current.add(member, kind, stream)
                    else:
                        current.dotted.append(member)
            except TarError as error:
                self.ledger.note(shard, str(error), BROKEN_TAR)
            if current is not None:
                yield from self._closed(current, loose, stream)
            for sample in loose.values():
                if sample.complete:
                    sample.read_missing(stream)
                yield sample
                sample.data.clear()

    def _closed(self, sample: _Sample, loose: dict[str, _Sample], stream: BufferedIOBase) -> Iterator[_Sample]:
        """Yield a sample if it is complete; else keep the positions of its members, not their bytes."""
        for part in sample.split():
            self.ledger.read += 1
            if part.complete:
                part.read_missing(stream)
                yield part
            part.data.clear()
            if not part.complete and loose.setdefault(part.key, part) is not part:
                self.ledger.read -= 1
                loose[part.key].join(part)

    def _record(self, shard: str, sample: _Sample, keys: KeysSeen) -> Record:
        texts = Texts()
        position = ""
        if sample.image is not None and sample.complete:
            texts = captions_of({k: sample.data[member.offset] for k, member in sample.texts.items()}, self.section)
            keys.see(texts.values)
            self.ledger.ignored.update([TEXT_UNUSED] * texts.unused)
            for reason in (BROKEN_JSON * (texts.broken and bool(texts.captions)), sample.reason):
                if reason:
                    self.ledger.note(shard, sample.key, reason)
            image = examine(sample.data[sample.image.offset])
            position = f"{sample.image.offset}+{sample.image.size}"
        else:
            image = sample.reason or (NO_IMAGE if sample.image is None else NO_CAPTION)
        return Record(
            shard,
            sample.key,
            f"{shard}@{position}",
            image,
            [Part(sample.key, texts.captions, BROKEN_JSON if texts.broken else "", f"{shard}@{position}")],
            **about(texts.values, self.section),
        )

    def write_kept(self, cleaned: Cleaned) -> str:
        """Copy each tar without the members of pairs that go, and img2dataset's files of the shard."""
        folders = [Path(name).parent for name in self._shards]
        near = Path(os.path.commonpath(folders)) if self._base == Path() else Path()
        for name in self._shards:
            out, gone, changed = Path(name).relative_to(near), list[str](), list[tuple[Member, bytes | None]]()
            for sample in self._samples(name):
                if sample.image is None or not sample.complete:
                    continue
                change = cleaned.changes.get(f"{name}@{sample.image.offset}+{sample.image.size}")
                if change == "":
                    gone.append(sample.key)
                    changed += [(member, None) for member in (sample.image, *sample.texts.values())]
                for kind, member in sample.texts.items() if change else ():
                    new = corrected_text(f".{kind}", sample.data[member.offset], change or "", self.section)
                    changed.append((member, new))
            with (self._base / name).open("rb") as original, atomic_file(cleaned.folder / out) as stream:
                copy_members(original, stream, changed)
            self._write_described(name, out, gone, cleaned)
        single = len(self._shards) == 1 and self._base == Path()
        return Path(self._shards[0]).name if single else ""

    def _write_described(self, shard: str, out: Path, gone: Sequence[str], cleaned: Cleaned) -> None:
        """Write img2dataset's table and counts of a shard without some pairs."""
        table = (self._base / shard).with_suffix(".parquet")
        if table.is_file() and gone and "key" in pl.read_parquet_schema(table):
            with atomic_file(cleaned.folder / out.with_suffix(".parquet")) as stream:
                pl.read_parquet(table).filter(~pl.col("key").cast(pl.String).is_in(gone)).write_parquet(stream)
        cleaned.copy(table, str(out.with_suffix(".parquet")))
        stats, counts = self._stats(shard)
        if counts is not None and isinstance(counts.get("successes"), int):
            counts = {**counts, "successes": counts["successes"] - len(gone)}
            write_json(cleaned.folder / out.with_name(stats.name), counts)

    def _stats(self, shard: str) -> tuple[Path, dict[str, Any] | None]:
        """Return img2dataset's counts of a shard and their file; None if it has none."""
        file = (self._base / shard).with_name(f"{Path(shard).stem}_stats.json")
        read = read_file(file)
        counts = parse_json(read) if isinstance(read, bytes) else None
        return file, counts if isinstance(counts, dict) else None

    def _failed(self, shard: str) -> set[str]:
        """Return the keys that failed according to img2dataset's table, and leave them out."""
        table = (self._base / shard).with_suffix(".parquet")
        if not table.is_file():
            return set()
        try:
            if not {"key", "status"} <= set(pl.read_parquet_schema(table)):
                return set()
            rows = pl.read_parquet(table, columns=["key", "status"]).filter(pl.col("status") != "success")
        except (pl.exceptions.PolarsError, OSError):
            self.ledger.note(table.name, "", "img2dataset's table is unreadable")
            return set()
        keys = rows["key"].cast(pl.String).to_list()
        where = str(PurePosixPath(shard).with_suffix(".parquet"))
        self.ledger.read += rows.height
        for key, status in zip(keys, rows["status"], strict=True):
            self.ledger.leave_out(where, str(key), f"img2dataset: {status}")
        return set(keys)

    def _check_stats(self, shard: str, usable: int) -> None:
        counts = self._stats(shard)[1]
        expected = counts.get("successes") if counts else None
        if isinstance(expected, int) and usable < expected:
            self.ledger.note(shard, f"{usable:,} of {expected:,}", FEWER)

    def read(self, references: Sequence[str]) -> list[bytes]:
        contents: dict[int, bytes] = {}
        opened, stream = "", None
        with contextlib.ExitStack() as stack:
            for position in self.storage_order(references):
                shard, offset, size = _place(references[position])
                if stream is None or shard != opened:
                    stack.close()
                    stream, opened = stack.enter_context(_open(self._base / shard, references[position])), shard
                stream.seek(offset)
                contents[position] = stream.read(size)
                if len(contents[position]) != size:
                    raise image_gone(references[position], "a shorter tar than before")
        return [contents[position] for position in range(len(references))]

    def storage_order(self, references: Sequence[str]) -> list[int]:
        rank = {name: number for number, name in enumerate(self._shards)}
        places = [_place(reference) for reference in references]
        return sorted(range(len(places)), key=lambda k: (rank.get(places[k][0], -1), places[k][1]))


def split_name(name: str) -> tuple[str, str]:
    """Split a member's name at the first dot of its last part into key and kind."""
    folder, slash, file_name = name.rpartition("/")
    stem, _, kind = file_name.partition(".")
    return folder + slash + stem, kind.lower()


class Texts(NamedTuple):
    """Content of the text and JSON of a pair."""

    captions: Sequence[object] = ()
    values: Mapping[str, object] = {}
    broken: bool = False
    unused: bool = False


def captions_of(texts: dict[str, bytes], section: DataSection) -> Texts:
    """Return the captions of a pair's texts, and the values of its JSON."""
    parsed = json_captions(texts["json"], section) if "json" in texts else None
    captions: list[object] = parsed[0] if parsed else []
    values: dict[str, object] = dict(parsed[1]) if parsed else {}
    broken = "json" in texts and parsed is None
    if "txt" not in texts:
        return Texts(captions, values, broken)
    text = decode_text(texts["txt"]).removesuffix("\n").removesuffix("\r")
    # a byte order mark or final line break stays if the JSON's caption has it, too
    same = [str(caption).encode("utf-8", "surrogatepass") for caption in captions] == [texts["txt"]]
    values.setdefault("txt", text)
    if "caption_column" in named_columns(section):
        captions = listed_captions(values.get(section.caption_column))
    elif len(captions) < 2 and not same:
        captions = [text]
    return Texts(captions, values, broken, unused=not same and bool(captions) and text not in captions)


def _place(reference: str) -> tuple[str, int, int]:
    shard, _, position = reference.rpartition("@")
    offset, _, size = position.partition("+")
    if not (shard and offset.isdigit() and size.isdigit()):
        raise image_gone(reference, "a reference to something other than a tar")
    return shard, int(offset), int(size)


def _open(path: Path, reference: str) -> BufferedReader:
    try:
        return path.open("rb")
    except OSError as error:
        raise image_gone(reference, error.strerror or str(error)) from error


def _check_is_tar(path: Path) -> None:
    with path.open("rb") as stream:
        head = stream.read(512)
    packed = head.startswith(PACKED)
    got = "a compressed tar" if packed else "a file that is not a tar"
    expected = "an uncompressed tar"
    hint = "Decompress it, for example with gunzip." if packed else "Remove it from data.path."
    require(is_tar(head) or not any(head), f"{path}", got, expected, hint)


def expand(text: str) -> list[str]:
    """Expand ranges, choices and lists of shards."""
    return [name for part in text.split("::") for name in _expanded(part)]


def _expanded(text: str) -> list[str]:
    names = [text]
    while True:
        span, choice = _RANGE.search(names[0]), _CHOICE.search(names[0])
        match = span or choice
        if match is None:
            return names
        options = _numbers(text, span) if span else match[1].split(",")
        got = f"{text!r}, which is more than {_MOST_SHARDS:,} shards"
        require(len(names) * len(options) <= _MOST_SHARDS, "[data] path", got, "fewer", "Make the range smaller.")
        names = [name.replace(match[0], option, 1) for name in names for option in options]


def _numbers(text: str, span: "re.Match[str]") -> Sequence[str]:
    first, last = int(span[1]), int(span[2])
    expected = f"an increasing range of at most {_MOST_SHARDS:,} shards"
    is_valid, got = 0 <= last - first < _MOST_SHARDS, f"the range {span[0]} in {text!r}"
    require(is_valid, "[data] path", got, expected, "Fix the range.")
    return [f"{number:0{len(span[1])}d}" for number in range(first, last + 1)]


def is_list(text: str) -> bool:
    """Return whether a path is a range or a list of shards."""
    return "::" in text or bool(_RANGE.search(text))


def find_shards(section: DataSection) -> tuple[Path, list[str]]:
    """Return the tars of a path: their folder, and their names."""
    text, path = section.path, Path(section.path)
    if text and path.is_dir():
        base, names = path, sorted(name for name in PathProbe(text).all_files() if name.endswith(".tar"))
    else:
        base, names = Path(), expand(text) if text else []
    require_data(names, section, "a tar, a folder of tars, a range such as data/{0000..0123}.tar, or a :: list")
    missing = [name for name in names if not (base / name).is_file()]
    for name in missing:
        got = f"no file {name!r} ({len(missing):,} of {len(names):,} shards are missing)"
        raise InputError("[data] path", got=got, expected="all named shards", hint="Restore it, or fix the range.")
    return base, names
