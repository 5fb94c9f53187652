"""Tars of images and captions (webdataset), as written by img2dataset and read by open_clip.

Members with the same name up to the first dot are a pair; if all images and texts of a key have further dots
(`photo.v2.png` and `photo.v2.txt`), up to the last dot. Captions are, in this order: the JSON key
`data.caption_column` if set, a JSON list `captions`, the whole `.txt`, the JSON's `caption`. Images and texts without a
pair are listed; other members are counted. Shards can be given as `{0000..0123}` ranges and `::` lists.
"""

import itertools
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from io import BufferedIOBase, BufferedReader
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import polars as pl

from clipmem.base.errors import require
from clipmem.base.paths import atomic_file, write_json
from clipmem.base.remote import AnyPath, arrow_input, data_path
from clipmem.base.sections import DataSection
from clipmem.data.decoding import MAX_BYTES
from clipmem.data.sources import folders, records
from clipmem.data.sources.base import SOURCES, Cleaned, Shards, Source, image_gone, require_data
from clipmem.data.sources.path_probe import IMAGE_ENDINGS, PACKED, PathProbe, parse_json
from clipmem.data.sources.records import Part, Record
from clipmem.data.sources.tar import BLOCK, Member, TarError, copy_members, is_tar, members

BROKEN_TAR = "broken or truncated tar"
FEWER = "fewer images than in its _stats.json"
SECOND = "second image or text of the same kind and key"
EXTRA = "image or text with the key of another pair"
_KINDS = tuple(name[1:] for name in IMAGE_ENDINGS)
_TEXTS = ("txt", "json")
_BUFFER = 1 << 20
_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")
_CHOICE = re.compile(r"\{([^{}]*,[^{}]*)\}")
_MOST_SHARDS = 1_000_000


@dataclass(slots=True)
class _Sample:
    """The members of one pair read so far by kind, and their bytes while available."""

    key: str
    members: dict[str, Member] = field(default_factory=dict)  # kinds: "image", "txt" and "json"
    data: dict[int, bytes] = field(default_factory=dict)
    reason: str = ""
    spare: list[tuple[Member, str]] = field(default_factory=list)  # with the reason, if it is a record of its own
    dotted: list[Member] = field(default_factory=list)

    def add(self, member: Member, kind: str, stream: BufferedIOBase | None = None) -> None:
        """Add a member, and read it if a stream is given."""
        if member.problem or member.size > (folders.MOST_TEXT if kind in _TEXTS else MAX_BYTES):
            self.reason = self.reason or member.problem or records.MANY_BYTES
            self.spare.append((member, ""))
            return
        if self.members.setdefault(kind if kind in _TEXTS else "image", member) is not member:
            self.spare.append((member, SECOND))
        elif stream is not None:
            self.read_missing(stream)

    def split(self) -> "list[_Sample]":
        """Return the sample, or one per name up to the last dot if all members have further dots."""
        if self.members or self.reason or not self.dotted:
            self.spare += [(member, EXTRA) for member in self.dotted]
            return [self]
        samples: dict[str, _Sample] = {}
        for member in self.dotted:
            stem, _, kind = member.name.rpartition(".")
            samples.setdefault(stem, _Sample(stem)).add(member, kind.lower())
        return list(samples.values())

    def join(self, other: "_Sample") -> None:
        """Add members of the same pair from elsewhere in the tar."""
        for kind, member in other.members.items():
            self.add(member, kind)
        self.spare += other.spare
        self.reason = self.reason or other.reason

    def read_missing(self, stream: BufferedIOBase) -> None:
        """Read the members whose bytes are not available."""
        for member in self.members.values():
            if member.offset not in self.data:
                stream.seek(member.offset)
                self.data[member.offset] = stream.read(member.size)

    @property
    def complete(self) -> bool:
        return "image" in self.members and len(self.members) > 1

    @property
    def position(self) -> str:
        image = self.members["image"]
        return f"{image.offset}+{image.size}"


class Texts(NamedTuple):
    """The captions of a sample, not checked yet; all values; whether its JSON is broken; whether its text is unused."""

    captions: Sequence[object]
    values: dict[str, object]
    broken: bool
    unused: bool


def texts_of(contents: Mapping[str, bytes], section: DataSection) -> Texts:
    """Return the captions of a sample with the members `txt`, `json` or both, as at the top of this file."""
    parsed = folders.json_captions(contents["json"], section) if "json" in contents else None
    captions, values = (parsed[0], dict(parsed[1])) if parsed else (list[object](), dict[str, object]())
    broken, unused = "json" in contents and parsed is None, False
    if "txt" in contents:
        text = folders.decode_text(contents["txt"]).removesuffix("\n").removesuffix("\r")
        # a byte order mark or final line break stays if the JSON's caption has it, too
        same = [str(caption).encode("utf-8", "surrogatepass") for caption in captions] == [contents["txt"]]
        values.setdefault("txt", text)
        if "caption_column" in records.named_columns(section):
            captions = records.listed_captions(values.get(section.caption_column))
        elif len(captions) < 2 and not same:
            captions = [text]
        unused = not same and bool(captions) and text not in captions
    return Texts(captions, values, broken, unused)


@SOURCES.register("webdataset")
class WebdatasetSource(Source):
    """A tar, a folder of tars, a range or a list of tars."""

    summary = "Tars of images and captions, as written by img2dataset."
    uses = records.KEYS - {"image_column"}
    rank = 20
    remote = True
    sharded = True

    def __init__(self, section: DataSection, shard: str | None = None) -> None:
        super().__init__(section, shard)
        text, path = section.path, data_path(section.path)
        self._base, self._probe = path if text and path.is_dir() else None, PathProbe(text)
        names = [shard] if shard else expand(text) if text else []
        if self._base is not None and not shard:
            names = sorted(name for name in self._probe.all_files() if name.lower().endswith(".tar"))
        self._shards = names
        require_data(names, section, "a tar, a folder of tars, a range such as data/{0000..0123}.tar, or a :: list")
        files = [self._file(name) for name in names]
        missing = [f"{file}" for file in files if isinstance(file, Path) and not file.is_file()]
        got = f"no file {''.join(missing[:1])!r} ({len(missing):,} of {len(names):,} shards are missing)"
        require(not missing, "[data] path", got, "all named shards", "Restore it, or fix the range.")
        with ThreadPoolExecutor(16) as threads:  # of a remote file, a request each
            heads = [] if shard == "" and len(files) > 1 else list(threads.map(_head, files))
        for file, head in zip(files, heads, strict=False):
            packed = head.startswith(PACKED)
            got = "a compressed tar" if packed else "a file that is not a tar"
            hint = "Decompress it, for example with gunzip." if packed else "Remove it from data.path."
            require(is_tar(head) or not any(head), f"{file}", got, "an uncompressed tar", hint)

    def shards(self) -> Shards:
        self._probe.count_others(self.ledger, (), ())
        return self.section, {name: self._file(name) for name in self._shards}

    @classmethod
    def recognize(cls, probe: PathProbe) -> str:
        if probe.is_file:
            return "a tar" if is_tar(probe.head) else ""
        if probe.is_dir:
            tars = probe.with_suffix(".tar")
            return f"a folder with {len(tars):,} tars" if tars else ""
        several = "::" in probe.text or _RANGE.search(probe.text) or _CHOICE.search(probe.text)
        return "a range or list of tars" if several and ".tar" in probe.text.lower() else ""

    def records(self) -> Iterator[Record]:
        keys: set[str] = set()
        for name in self._shards:
            failed = self._failed(name)
            images = 0
            for sample in self._samples(name):
                images += "image" in sample.members
                for member, reason in [second for second in sample.spare if second[1]]:
                    self.ledger.read += 1
                    self.ledger.leave_out(name, member.name, reason)
                if sample.key in failed:
                    self.ledger.read -= 1  # the table's row is that record
                else:
                    yield self._record(name, sample, keys)
            stated = self._stats(name).get("successes")
            if isinstance(stated, int) and images < stated:
                self.ledger.note(name, f"{images:,} of {stated:,}", FEWER)
        if self.shard:  # others may have the keys
            return
        records.check_keys(self.section, keys, f"the JSON of the tars of {self.section.path}")
        if self._base is not None:
            used = {f"{name[:-4]}{end}" for name in self._shards for end in (name[-4:], ".parquet", "_stats.json")}
            self._probe.count_others(self.ledger, self._probe.all_files(), used)

    def _file(self, shard: str) -> AnyPath:
        return data_path(shard) if self._base is None else self._base / shard

    def _samples(self, shard: str) -> Iterator[_Sample]:
        """Yield the samples of a shard, those whose members are not contiguous last."""
        loose: dict[str, _Sample] = {}
        with BufferedReader(self._file(shard).open("rb", buffering=0), _BUFFER) as stream:
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
                    if current is not None and key != current.key:
                        yield from self._closed(current, loose, stream)
                        current = None
                    current = current or _Sample(key)
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

    def _record(self, shard: str, sample: _Sample, keys: set[str]) -> Record:
        captions, values, position, broken = list[object](), dict[str, object](), "", False
        if sample.complete:
            contents = {kind: sample.data[member.offset] for kind, member in sample.members.items()}
            captions, values, broken, unused = texts_of(contents, self.section)
            self.ledger.ignored.update([folders.TEXT_UNUSED] * unused)
            keys.update(values if records.named_columns(self.section) else ())
            for reason in (folders.BROKEN_JSON * (broken and bool(captions)), sample.reason):
                if reason:
                    self.ledger.note(shard, sample.key, reason)
            image, position = records.examine(contents["image"]), sample.position
        else:
            image = sample.reason or (records.NO_CAPTION if "image" in sample.members else records.NO_IMAGE)
        return Record(
            shard,
            sample.key,
            f"{shard}@{position}",
            image,
            [Part(sample.key, captions, folders.BROKEN_JSON if broken else "", f"{shard}@{position}")],
            **records.about(values, self.section),
        )

    def write_kept(self, cleaned: Cleaned) -> str:
        """Copy each tar without the members of pairs that go, and img2dataset's files of the shard."""
        parents = [Path(name).parent for name in self._shards]
        near = Path(os.path.commonpath(parents)) if self._base is None else Path()
        for name in self._shards:
            out, gone, changed = Path(name).relative_to(near), list[str](), list[tuple[Member, bytes | None]]()
            for sample in self._samples(name):
                change = cleaned.changes.get(f"{name}@{sample.position}") if sample.complete else None
                if change == "":
                    gone.append(sample.key)
                    # a second image and text of the key would become a pair without the first
                    seconds = [member for member, _ in sample.spare]
                    changed += [(member, None) for member in (*sample.members.values(), *seconds)]
                    cleaned.seconds.extend(member.name for member, reason in sample.spare if reason)
                for kind, member in sample.members.items() if change else ():
                    if kind != "image":
                        new = folders.corrected_text(f".{kind}", sample.data[member.offset], change or "", self.section)
                        changed.append((member, new))
            with self._file(name).open("rb") as original, atomic_file(cleaned.folder / out) as stream:
                copy_members(original, stream, changed)
            table, stats = self._file(name).with_suffix(".parquet"), self._stats(name)
            if table.is_file() and gone and "key" in pl.read_parquet_schema(arrow_input(table)):
                with atomic_file(cleaned.folder / out.with_suffix(".parquet")) as stream:
                    rows = pl.read_parquet(arrow_input(table))
                    rows.filter(~pl.col("key").cast(pl.String).is_in(gone)).write_parquet(stream)
            cleaned.copy(table, str(out.with_suffix(".parquet")))
            if isinstance(successes := stats.get("successes"), int):
                file = cleaned.folder / out.with_name(_stats_name(name))
                write_json(file, {**stats, "successes": successes - len(gone)})
        single = len(self._shards) == 1 and self._base is None
        return Path(self._shards[0]).name if single else ""

    def _stats(self, shard: str) -> dict[str, object]:
        """Return img2dataset's counts of a shard, if it has any."""
        read = records.read_file(self._file(shard).with_name(_stats_name(shard)))
        counts = parse_json(read) if isinstance(read, bytes) else None
        return counts if isinstance(counts, dict) else {}

    def _failed(self, shard: str) -> set[str]:
        """Return the keys that failed according to img2dataset's table, and leave them out."""
        table = self._file(shard).with_suffix(".parquet")
        if not table.is_file():
            return set()
        try:
            if not {"key", "status"} <= set(pl.read_parquet_schema(arrow_input(table))):
                return set()
            rows = pl.read_parquet(arrow_input(table), columns=["key", "status"]).filter(pl.col("status") != "success")
        except (pl.exceptions.PolarsError, OSError):
            self.ledger.note(table.name, "", "img2dataset's table is unreadable")
            return set()
        keys = rows["key"].cast(pl.String).to_list()
        where = str(PurePosixPath(shard).with_suffix(".parquet"))
        self.ledger.read += rows.height
        for key, status in zip(keys, rows["status"], strict=True):
            self.ledger.leave_out(where, str(key), f"img2dataset: {status}")
        return set(keys)

    def read(self, references: Sequence[str]) -> list[bytes]:
        contents: dict[int, bytes] = {}
        for shard, block in itertools.groupby(self.storage_order(references), lambda k: _place(references[k])[0]):
            positions = list(block)
            try:
                stream = self._file(shard).open("rb")
            except OSError as error:
                raise image_gone(references[positions[0]], error.strerror or str(error)) from error
            with stream:
                for position in positions:
                    _, offset, size = _place(references[position])
                    stream.seek(offset)
                    contents[position] = stream.read(size)
                    if len(contents[position]) != size:
                        raise image_gone(references[position], "a shorter tar than before")
        return [contents[position] for position in range(len(references))]

    def storage_order(self, references: Sequence[str]) -> list[int]:
        rank = {name: number for number, name in enumerate(self._shards)}
        places = [_place(reference) for reference in references]
        return sorted(range(len(places)), key=lambda k: (rank.get(places[k][0], -1), places[k][1]))


def _head(file: AnyPath) -> bytes:
    with file.open("rb", buffering=0) as stream:
        return stream.read(BLOCK)


def _stats_name(shard: str) -> str:
    return f"{Path(shard).stem}_stats.json"


def split_name(name: str) -> tuple[str, str]:
    """Split a member's name at the first dot of its last part into key and kind."""
    folder, slash, file_name = name.rpartition("/")
    stem, _, kind = file_name.partition(".")
    return folder + slash + stem, kind.lower()


def _place(reference: str) -> tuple[str, int, int]:
    shard, _, position = reference.rpartition("@")
    offset, _, size = position.partition("+")
    if not (shard and offset.isdigit() and size.isdigit()):
        raise image_gone(reference, "a reference to something other than a tar")
    return shard, int(offset), int(size)


def expand(text: str) -> list[str]:
    """Expand ranges, choices and lists of shards."""
    every: list[str] = []
    for part in text.split("::"):
        names = [part]
        while match := (span := _RANGE.search(names[0])) or _CHOICE.search(names[0]):
            options = match[1].split(",")
            if span:
                first, last = int(span[1]), int(span[2])
                expected = f"an increasing range of at most {_MOST_SHARDS:,} shards"
                is_valid, got = 0 <= last - first < _MOST_SHARDS, f"the range {span[0]} in {part!r}"
                require(is_valid, "[data] path", got, expected, "Fix the range.")
                options = [f"{number:0{len(span[1])}d}" for number in range(first, last + 1)]
            got = f"{part!r}, which is more than {_MOST_SHARDS:,} shards"
            require(len(names) * len(options) <= _MOST_SHARDS, "[data] path", got, "fewer", "Make the range smaller.")
            names = [name.replace(match[0], option, 1) for name in names for option in options]
        every += names
    return every
