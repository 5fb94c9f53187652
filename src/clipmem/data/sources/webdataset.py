"""Tars of pictures and captions, as img2dataset writes them and open_clip trains from (webdataset).

Members with one name up to the first dot are one pair. `.json` with a list `captions` holds several captions; else
`.txt` is one caption, all of it; else the JSON's `caption`. Tars are read once, in order; a reference holds the place
of the picture's bytes, so that each is read again with one seek. Beside `NAME.tar`, img2dataset leaves `NAME.parquet`
(records whose status is not "success" take no part, and are listed) and `NAME_stats.json` (how many there must be).
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from io import BufferedIOBase, BufferedReader
from pathlib import Path, PurePosixPath

import polars as pl

from clipmem.base.errors import InputError
from clipmem.base.recipes import DataSection
from clipmem.data.decoding import MAX_BYTES
from clipmem.data.sources.base import SOURCES, RecordSource
from clipmem.data.sources.columns import objects_of, text_of
from clipmem.data.sources.imagefolder import decode_text, json_captions
from clipmem.data.sources.look import PICTURES, Look
from clipmem.data.sources.records import MANY_BYTES, NO_CAPTION, NO_PICTURE, Record, examine, problem
from clipmem.data.sources.shards import find_shards, is_list
from clipmem.data.sources.tar import Member, TarError, is_tar, members

BROKEN_TAR = "a tar that is broken or cut off"
FEWER = "fewer pictures than its statistics say"
_KINDS = tuple(name[1:] for name in PICTURES)
_TEXTS = ("txt", "json")
_MOST_TEXT = 16 * 2**20
_BUFFER = 1 << 18


@dataclass
class _Sample:
    """What has been seen of one pair: its members, and their bytes while they are at hand."""

    key: str
    picture: Member | None = None
    texts: dict[str, Member] = field(default_factory=dict)
    data: dict[int, bytes] = field(default_factory=dict)
    reason: str = ""

    def add(self, stream: BufferedIOBase, member: Member, kind: str) -> None:
        if member.problem or member.size > (_MOST_TEXT if kind in _TEXTS else MAX_BYTES):
            self.reason = self.reason or member.problem or MANY_BYTES
        elif kind in _TEXTS:
            self.texts[kind] = member
            self._read(stream, member)
        elif self.picture is None:
            self.picture = member
            self._read(stream, member)

    def _read(self, stream: BufferedIOBase, member: Member) -> None:
        stream.seek(member.offset)
        self.data[member.offset] = stream.read(member.size)

    def put_aside(self, loose: "dict[str, _Sample]") -> None:
        """Keep the places of an incomplete sample, not its bytes: the rest may come later."""
        self.data.clear()
        before = loose.setdefault(self.key, self)
        before.picture = before.picture or self.picture
        before.texts = {**self.texts, **before.texts}
        before.reason = before.reason or self.reason

    def read_again(self, stream: BufferedIOBase) -> None:
        """Read the members of a sample that has turned out to be complete."""
        if self.picture is not None and self.complete:
            for member in (self.picture, *self.texts.values()):
                self._read(stream, member)

    @property
    def complete(self) -> bool:
        return self.picture is not None and bool(self.texts)


@SOURCES.register("webdataset")
class WebdatasetSource(RecordSource):
    """A tar, a folder of tars, a range or a list of them; never extracted."""

    def __init__(self, section: DataSection) -> None:
        super().__init__(section)
        self._base, self._shards = find_shards(section.path)
        for name in self._shards:
            _check_is_tar(self._base / name)

    @classmethod
    def recognise(cls, look: Look) -> str:
        """A tar, names of tars, or a folder with some."""
        if look.is_file:
            return "a tar" if is_tar(look.head) else ""
        if look.is_dir:
            tars = look.with_suffix(".tar")
            return f"a folder with {len(tars):,} tars" if tars else ""
        return "a range or list of tars" if is_list(look.text) and ".tar" in look.text else ""

    def records(self) -> Iterator[Record]:
        """Yield one record a pair, shard by shard."""
        for name in self._shards:
            failed = self._failed(name)
            pictures = 0
            for sample in self._samples(name):
                pictures += sample.picture is not None
                if sample.key not in failed:
                    yield self._record(name, sample)
            self._check_stats(name, pictures)

    def _samples(self, shard: str) -> Iterator[_Sample]:
        """Yield the samples of a shard; those whose members do not stand together come last."""
        loose: dict[str, _Sample] = {}
        with BufferedReader((self._base / shard).open("rb", buffering=0), _BUFFER) as stream:
            current: _Sample | None = None
            try:
                for member in members(stream):
                    key, kind = split_name(member.name)
                    if kind not in _KINDS and kind not in _TEXTS:
                        if member.problem:
                            self.problems.append(problem(shard, member.name, member.problem))
                        continue
                    if current is None or key != current.key:
                        if current is not None and current.complete:
                            yield current
                        elif current is not None:
                            current.put_aside(loose)
                        current = _Sample(key)
                    current.add(stream, member, kind)
            except TarError as error:
                self.problems.append(problem(shard, str(error), BROKEN_TAR))
            if current is not None:
                current.put_aside(loose)
            for sample in loose.values():
                sample.read_again(stream)
                yield sample
                sample.data.clear()

    def _record(self, shard: str, sample: _Sample) -> Record:
        captions: list[object] = []
        values: dict[str, object] = {}
        place = ""
        if sample.picture is not None and sample.complete:
            texts = {kind: sample.data[member.offset] for kind, member in sample.texts.items()}
            captions, values = captions_of(texts, self.section)
            picture = examine(sample.data[sample.picture.offset])
            place = f"{sample.picture.offset}+{sample.picture.size}"
        else:
            picture = sample.reason or (NO_PICTURE if sample.picture is None else NO_CAPTION)
        return Record(
            shard,
            sample.key,
            f"{shard}@{place}",
            picture,
            captions,
            group=text_of(values, self.section.group_column),
            label=text_of(values, self.section.label_column),
            objects=objects_of(values, self.section.object_column),
        )

    def _failed(self, shard: str) -> set[str]:
        """Return the keys that img2dataset's table says are no good; they are listed."""
        table = (self._base / shard).with_suffix(".parquet")
        if not table.is_file():
            return set()
        try:
            if not {"key", "status"} <= set(pl.read_parquet_schema(table)):
                return set()
            rows = pl.read_parquet(table, columns=["key", "status"]).filter(pl.col("status") != "success")
        except (pl.exceptions.PolarsError, OSError):
            self.problems.append(problem(table.name, "", "img2dataset's table is not readable"))
            return set()
        keys = rows["key"].cast(pl.String).to_list()
        where = str(PurePosixPath(shard).with_suffix(".parquet"))
        self.problems += [
            problem(where, str(key), f"img2dataset: {status}") for key, status in zip(keys, rows["status"], strict=True)
        ]
        return set(keys)

    def _check_stats(self, shard: str, found: int) -> None:
        stats = (self._base / shard).with_name(f"{Path(shard).stem}_stats.json")
        if not stats.is_file():
            return
        try:
            expected = json.loads(stats.read_text())["successes"]
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return
        if isinstance(expected, int) and found < expected:
            self.problems.append(problem(shard, f"{found:,} of {expected:,}", FEWER))

    def read(self, references: Sequence[str]) -> list[bytes]:
        """Return the bytes of these members; each tar is opened once."""
        found: dict[int, bytes] = {}
        order = self.storage_order(references)
        stream: BufferedReader | None = None
        opened = ""
        try:
            for position in order:
                shard, offset, size = _place(references[position])
                if stream is None or shard != opened:
                    if stream is not None:
                        stream.close()
                    stream, opened = _open(self._base / shard, references[position]), shard
                stream.seek(offset)
                found[position] = stream.read(size)
                if len(found[position]) != size:
                    raise _gone(references[position], "a tar that is shorter than it was")
        finally:
            if stream is not None:
                stream.close()
        return [found[position] for position in range(len(references))]

    def storage_order(self, references: Sequence[str]) -> list[int]:
        """Return the order of shards, and of places in them."""
        rank = {name: number for number, name in enumerate(self._shards)}
        places = [_place(reference) for reference in references]
        return sorted(range(len(places)), key=lambda k: (rank.get(places[k][0], -1), places[k][1]))


def split_name(name: str) -> tuple[str, str]:
    """Split a member's name into the key of its pair and its kind: what follows the first dot of its last part.

    Example:
        >>> split_name("a.b/000.seg.PNG")
        ('a.b/000', 'seg.png')
    """
    folder, slash, own = name.rpartition("/")
    stem, _, kind = own.partition(".")
    return folder + slash + stem, kind.lower()


def captions_of(texts: dict[str, bytes], section: DataSection) -> tuple[list[object], dict[str, object]]:
    """Return the captions of a pair's texts, and the values of its JSON."""
    found = json_captions(texts["json"], section) if "json" in texts else None
    captions: list[object] = found[0] if found else []
    # a text file may have a byte order mark or end its only line: where the JSON says that these are the caption's own,
    # they stay
    same = [str(caption).encode("utf-8", "surrogatepass") for caption in captions] == [texts.get("txt")]
    if "txt" in texts and len(captions) < 2 and not same:
        captions = [decode_text(texts["txt"]).removesuffix("\n").removesuffix("\r")]
    return captions, dict(found[1]) if found else {}


def _place(reference: str) -> tuple[str, int, int]:
    shard, _, place = reference.rpartition("@")
    offset, _, size = place.partition("+")
    if not (shard and offset.isdigit() and size.isdigit()):
        raise _gone(reference, "a reference that is not of a tar")
    return shard, int(offset), int(size)


def _open(path: Path, reference: str) -> BufferedReader:
    try:
        return path.open("rb")
    except OSError as error:
        raise _gone(reference, error.strerror or str(error)) from error


def _gone(reference: str, got: str) -> InputError:
    return InputError(
        f"picture {reference!r}",
        got=got,
        expected="the tar that was there when the pairs were listed",
        todo="Put it back, or start a study in another run folder.",
    )


def _check_is_tar(path: Path) -> None:
    with path.open("rb") as stream:
        head = stream.read(512)
    if head and not is_tar(head) and any(head):
        packed = head.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd"))
        raise InputError(
            f"{path}",
            got="a compressed tar" if packed else "a file that is not a tar",
            expected="a plain tar: pictures are compressed already, and only plain ones can be read at any place",
            todo="Unpack it once (for example with gunzip)." if packed else "Leave it out of data.path.",
        )
