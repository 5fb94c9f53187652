"""Tars of images and captions (webdataset), as written by img2dataset and read by open_clip.

Members with the same name up to the first dot are a pair; if all images and texts of a key have further dots
(`photo.v2.png` and `photo.v2.txt`), up to the last dot. Captions are, in this order: the JSON key
`data.caption_column` if set, a JSON list `captions`, the whole `.txt`, the JSON's `caption`. Images and texts without a
pair are listed; other members are counted. Shards can be given as `{0000..0123}` ranges and `::` lists.
"""

import contextlib
import itertools
import math
import os
import re
import tarfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from io import BufferedReader
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
from clipmem.data.sources.tar import Member, copy_members, is_tar, members

BROKEN_TAR = "broken or truncated tar"
FEWER = "fewer images than in its _stats.json"
SECOND = "second image or text of the same kind and key"
EXTRA = "image or text with the key of another pair"
_KINDS = tuple(name[1:] for name in IMAGE_ENDINGS)
_TEXTS = ("txt", "json")
_ENDINGS = tuple(f".{kind}" for kind in (*_KINDS, *_TEXTS))
_CHOICES = re.compile(r"\{(\d+\.\.\d+|[^{}]*,[^{}]*)\}")
_MOST_SHARDS = 1_000_000


@dataclass
class _Sample:
    """The members of one pair."""

    key: str
    image: Member | None = None
    texts: dict[str, Member] = field(default_factory=dict)
    reason: str = ""
    spare: list[tuple[Member, str]] = field(default_factory=list)

    def add(self, member: Member) -> None:
        """Add a member; a second one of its kind is spare."""
        kind = member.name.rpartition(".")[2].lower()
        if member.problem or member.size > (MOST_TEXT if kind in _TEXTS else MAX_BYTES):
            self.reason = self.reason or member.problem or MANY_BYTES
        elif self.image is not None if kind in _KINDS else kind in self.texts:
            self.spare.append((member, SECOND))
        elif kind in _KINDS:
            self.image = member
        else:
            self.texts[kind] = member

    def join(self, other: "_Sample") -> None:
        """Add members of the same pair from elsewhere in the tar."""
        for member in (*other.texts.values(), *([other.image] if other.image else [])):
            self.add(member)
        self.spare += other.spare
        self.reason = self.reason or other.reason

    @property
    def complete(self) -> bool:
        return self.image is not None and bool(self.texts)


def _samples_of(key: str, run: Sequence[Member]) -> Iterable[_Sample]:
    """Return the sample of neighbors with one key, or one per name up to the last dot if all have further dots."""
    dotted = {member for member in run if "." in split_name(member.name)[1]}
    apart = len(dotted) == len(run)
    samples: dict[str, _Sample] = {}
    for member in run:
        stem = member.name.rpartition(".")[0] if apart else key
        sample = samples.setdefault(stem, _Sample(stem))
        if apart or member not in dotted:
            sample.add(member)
        else:
            sample.spare.append((member, EXTRA))
    return samples.values()


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
            with self._opened(name) as stream:
                for sample in self._samples(name, stream):
                    images += sample.image is not None
                    for member, reason in sample.spare:
                        self.ledger.read += 1
                        self.ledger.leave_out(name, member.name, reason)
                    if sample.key in failed:
                        self.ledger.read -= 1  # the table's row is that record
                    else:
                        yield self._record(name, sample, stream, keys)
            expected = self._counts(name).get("successes")
            if isinstance(expected, int) and images < expected:
                self.ledger.note(name, f"{images:,} of {expected:,}", FEWER)
        keys.check(f"the JSON of the tars of {self.section.path}")
        if self._base != Path():
            probe, endings = PathProbe(self.section.path), (".tar", ".parquet", "_stats.json")
            used = {f"{name.removesuffix('.tar')}{ending}" for name in self._shards for ending in endings}
            probe.count_others(self.ledger, probe.all_files(), used)

    def _opened(self, shard: str) -> BufferedReader:
        return (self._base / shard).open("rb")

    def _members(self, shard: str, stream: BufferedReader) -> Iterator[Member]:
        """Yield the images and texts of a shard."""
        try:
            for member in members(stream):
                if member.name.lower().endswith(_ENDINGS):
                    yield member
                elif member.problem:
                    self.ledger.note(shard, member.name, member.problem)
                else:
                    self.ledger.ignore(member.name)
        except tarfile.TarError as error:
            self.ledger.note(shard, str(error), BROKEN_TAR)

    def _samples(self, shard: str, stream: BufferedReader) -> Iterator[_Sample]:
        """Yield the samples of a shard, those whose members are not contiguous last."""
        loose: dict[str, _Sample] = {}
        for key, run in itertools.groupby(self._members(shard, stream), lambda member: split_name(member.name)[0]):
            for sample in _samples_of(key, list(run)):
                if sample.complete:
                    self.ledger.read += 1
                    yield sample
                elif loose.setdefault(sample.key, sample) is not sample:
                    loose[sample.key].join(sample)
        self.ledger.read += len(loose)
        yield from loose.values()

    def _record(self, shard: str, sample: _Sample, stream: BufferedReader, keys: KeysSeen) -> Record:
        texts = Texts()
        place = ""
        if sample.image is not None and sample.complete:
            texts = captions_of({kind: _content(stream, text) for kind, text in sample.texts.items()}, self.section)
            keys.see(texts.values)
            self.ledger.ignored.update([TEXT_UNUSED] * texts.unused)
            for reason in (BROKEN_JSON * (texts.broken and bool(texts.captions)), sample.reason):
                if reason:
                    self.ledger.note(shard, sample.key, reason)
            image = examine(_content(stream, sample.image))
            place = f"{sample.image.offset}+{sample.image.size}"
        else:
            image = sample.reason or (NO_IMAGE if sample.image is None else NO_CAPTION)
        return Record(
            shard,
            sample.key,
            f"{shard}@{place}",
            image,
            [Part(sample.key, texts.captions, BROKEN_JSON if texts.broken else "", f"{shard}@{place}")],
            **about(texts.values, self.section),
        )

    def write_kept(self, cleaned: Cleaned) -> str:
        """Copy each tar without the members of pairs that go, and img2dataset's files of the shard."""
        folders = [Path(name).parent for name in self._shards]
        near = Path(os.path.commonpath(folders)) if self._base == Path() else Path()
        for name in self._shards:
            out, gone, changed = Path(name).relative_to(near), list[str](), list[tuple[Member, bytes | None]]()
            with self._opened(name) as original, atomic_file(cleaned.folder / out) as stream:
                for sample in self._samples(name, original):
                    if sample.image is None or not sample.complete:
                        continue
                    change = cleaned.changes.get(f"{name}@{sample.image.offset}+{sample.image.size}")
                    if change == "":
                        gone.append(sample.key)
                        changed += [(member, None) for member in (sample.image, *sample.texts.values())]
                    for kind, text in sample.texts.items() if change else ():
                        new = corrected_text(f".{kind}", _content(original, text), change or "", self.section)
                        changed.append((text, new))
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
        counts = self._counts(shard)
        if isinstance(counts.get("successes"), int):
            stays = {**counts, "successes": counts["successes"] - len(gone)}
            write_json(cleaned.folder / out.with_name(f"{out.stem}_stats.json"), stays)

    def _counts(self, shard: str) -> dict[str, Any]:
        """Return img2dataset's counts of a shard; empty if it has none."""
        data = read_file((self._base / shard).with_name(f"{Path(shard).stem}_stats.json"))
        counts = parse_json(data) if isinstance(data, bytes) else None
        return counts if isinstance(counts, dict) else {}

    def _failed(self, shard: str) -> set[str]:
        """Return the keys that failed according to img2dataset's table, and leave them out."""
        table = (self._base / shard).with_suffix(".parquet")
        if not table.is_file():
            return set()
        try:
            rows = pl.read_parquet(table, columns=["key", "status"]).filter(pl.col("status") != "success")
        except pl.exceptions.ColumnNotFoundError:
            return set()
        except (pl.exceptions.PolarsError, OSError):
            self.ledger.note(table.name, "", "img2dataset's table is unreadable")
            return set()
        self.ledger.read += rows.height
        rows = rows.cast(pl.String)
        for key, status in rows.iter_rows():
            self.ledger.leave_out(str(PurePosixPath(shard).with_suffix(".parquet")), f"{key}", f"img2dataset: {status}")
        return set(rows["key"])

    def read(self, references: Sequence[str]) -> list[bytes]:
        found: dict[int, bytes] = {}
        opened, stream = "", None
        with contextlib.ExitStack() as stack:
            for position in self.storage_order(references):
                shard, offset, size = _place(references[position])
                if stream is None or shard != opened:
                    stack.close()
                    try:
                        stream, opened = stack.enter_context(self._opened(shard)), shard
                    except OSError as error:
                        raise image_gone(references[position], error.strerror or str(error)) from error
                stream.seek(offset)
                found[position] = stream.read(size)
                if len(found[position]) != size:
                    raise image_gone(references[position], "a shorter tar than before")
        return [found[position] for position in range(len(references))]

    def storage_order(self, references: Sequence[str]) -> list[int]:
        rank = {name: number for number, name in enumerate(self._shards)}
        places = [_place(reference) for reference in references]
        return sorted(range(len(places)), key=lambda k: (rank.get(places[k][0], -1), places[k][1]))


def _content(stream: BufferedReader, member: Member) -> bytes:
    stream.seek(member.offset)
    return stream.read(member.size)


def split_name(name: str) -> tuple[str, str]:
    """Split a member's name at the first dot of its last part into key and kind."""
    folder, slash, own = name.rpartition("/")
    stem, _, kind = own.partition(".")
    return folder + slash + stem, kind.lower()


class Texts(NamedTuple):
    """Content of the text and JSON of a pair."""

    captions: Sequence[object] = ()
    values: Mapping[str, object] = {}
    broken: bool = False
    unused: bool = False


def captions_of(texts: dict[str, bytes], section: DataSection) -> Texts:
    """Return the captions of a pair's texts, and the values of its JSON."""
    found = json_captions(texts["json"], section) if "json" in texts else None
    captions: list[object] = found[0] if found else []
    values: dict[str, object] = dict(found[1]) if found else {}
    broken = "json" in texts and found is None
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
    shard, _, place = reference.rpartition("@")
    offset, _, size = place.partition("+")
    if not (shard and offset.isdigit() and size.isdigit()):
        raise image_gone(reference, "a reference to something other than a tar")
    return shard, int(offset), int(size)


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
    pieces = enumerate(_CHOICES.split(text))
    options = [_options(piece, text) if number % 2 else [piece] for number, piece in pieces]
    got = f"{text!r}, which is more than {_MOST_SHARDS:,} shards"
    few = math.prod(map(len, options)) <= _MOST_SHARDS
    require(few, "[data] path", got, "fewer", "Make the range smaller.")
    return ["".join(parts) for parts in itertools.product(*options)]


def _options(choice: str, text: str) -> list[str]:
    """Return the options of a choice `a,b` or a range `0000..0123`."""
    first, dots, last = choice.partition("..")
    if not (dots and first.isdigit() and last.isdigit()):
        return choice.split(",")
    increasing, got = 0 <= int(last) - int(first) < _MOST_SHARDS, f"the range {{{choice}}} in {text!r}"
    expected = f"an increasing range of at most {_MOST_SHARDS:,} shards"
    require(increasing, "[data] path", got, expected, "Fix the range.")
    return [f"{number:0{len(first)}d}" for number in range(int(first), int(last) + 1)]


def is_list(text: str) -> bool:
    """Return whether a path is a range or a list of shards."""
    return "::" in text or bool(_CHOICES.search(text))


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
