"""A folder of pictures with `metadata.csv`, `.jsonl` or `.parquet` (Hugging Face's imagefolder), or a text beside each.

Without metadata, `NAME.json` is an object with `caption` or `captions`, and `NAME.txt` holds one caption a line; the
text counts where the JSON gives none. Sub-folders belong to it.
"""

import json
import posixpath
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

from clipmem.base.errors import InputError
from clipmem.base.recipes import DataSection
from clipmem.base.suggest import did_you_mean
from clipmem.data.sources.base import SOURCES
from clipmem.data.sources.columns import CAPTIONS, KEYS, KeysSeen, chosen, objects_of, text_of
from clipmem.data.sources.files import FileSource, Row
from clipmem.data.sources.look import PICTURES, Look
from clipmem.data.sources.records import listed_captions, read_file
from clipmem.data.sources.text_tables import table_rows, text_encoding

METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
NOT_LISTED = "picture that the metadata does not name"
NO_PICTURE_BESIDE = "no picture of that name beside it"
BROKEN_JSON = "JSON that is not an object"
TEXT_BESIDE_JSON = ".txt beside a .json that has other captions"
TEXTS = (".txt", ".json")
_MOST_TEXT = 16 * 2**20
_NO_CAPTIONS = ("readme", "license", "notice")


@SOURCES.register("imagefolder")
class ImageFolderSource(FileSource):
    """Pictures and their captions in one folder."""

    uses = KEYS | {"split"}

    def __init__(self, section: DataSection) -> None:
        super().__init__(section)
        path = Path(section.path)
        if section.path and path.name in METADATA and path.is_file():
            path = path.parent
        self._folder = path
        if not section.path or not path.is_dir():
            raise InputError(
                "[data] path",
                got=f"{section.path!r}, where there is no folder",
                expected="a folder with pictures and their captions",
                hint="Set data.path.",
            )
        if section.split and not (path / section.split).is_dir():
            known = sorted(inside.name for inside in path.iterdir() if inside.is_dir())
            raise InputError(
                "[data] split",
                got=f"{section.split!r}, and {section.path} has no such folder",
                expected="the name of a folder in it",
                hint=did_you_mean(section.split, known, kind="folder"),
            )

    @classmethod
    def recognise(cls, look: Look) -> str:
        """A folder with a metadata file, or one where pictures have a text or JSON beside them."""
        if look.is_file and look.path.name in METADATA:
            return f"the file {look.path.name} of an imagefolder"
        if not look.is_dir:
            return ""
        named = [name for name in look.files if PurePosixPath(name).name in METADATA]
        if named:
            return f"a folder with {named[0]}"
        stems = {str(PurePosixPath(name).with_suffix("")) for name in look.with_suffix(".txt", ".json")}
        pictures = look.with_suffix(*PICTURES)
        beside = sum(str(PurePosixPath(name).with_suffix("")) in stems for name in pictures)
        return f"a folder where {beside:,} pictures have a caption beside them" if beside else ""

    @property
    def base(self) -> Path:
        """The folder."""
        return self._folder

    def _root(self, paths: object) -> str:  # noqa: ARG002
        return "."

    def _unnamed(self, references: set[str]) -> int:  # noqa: ARG002
        return 0  # they are listed: the folder is the data set

    def rows(self) -> Iterator[Row]:
        """Yield the rows of the metadata files, or one row a picture."""
        look = Look(str(self._folder / self.section.split))
        inside = f"{self.section.split}/" if self.section.split else ""
        files = [f"{inside}{name}" for name in look.all_files()]
        tables = [name for name in files if PurePosixPath(name).name in METADATA]
        pictures = [name for name in files if name.lower().endswith(PICTURES)]
        texts = [] if tables else [name for name in files if name.lower().endswith(TEXTS) and _may_be_caption(name)]
        if tables:
            yield from self._listed(tables, pictures)
        else:
            yield from self._beside(texts, pictures)
        look.count_others(self.ledger, files, {*tables, *pictures, *texts})

    def _listed(self, tables: list[str], pictures: list[str]) -> Iterator[Row]:
        named: set[str] = set()
        for table in tables:
            folder = PurePosixPath(table).parent
            for row in table_rows(self._folder / table, table, self.section, self.ledger):
                if isinstance(row.path, str) and row.path.strip():
                    row = row._replace(path=posixpath.normpath(str(folder / row.path)))
                    named.add(str(row.path))
                yield row
        for name in pictures:
            if name not in named:
                self.ledger.note(name, name, NOT_LISTED)

    def _beside(self, texts: list[str], pictures: list[str]) -> Iterator[Row]:
        beside: dict[str, list[str]] = {}
        for name in sorted(texts, key=lambda name: (PurePosixPath(name).suffix.lower(), name)):  # JSON comes first
            beside.setdefault(_stem(name), []).append(name)
        keys = KeysSeen(self.section)
        for name in pictures:
            self.ledger.read += 1
            row = Row(name, name, name, [])
            for text in beside.get(_stem(name), ()):
                row = self._with_text(row, text, keys)
            yield row
        keys.check(f"the JSON beside the pictures of {self.section.path}")
        stems = {_stem(name) for name in pictures}
        for name in texts:
            if _stem(name) not in stems:
                self.ledger.read += 1
                self.ledger.leave_out(name, name, NO_PICTURE_BESIDE)

    def _with_text(self, row: Row, name: str, keys: KeysSeen) -> Row:
        """Add what a file beside a picture says; the first that has captions counts."""
        data = read_file(self._folder / name, most=_MOST_TEXT)
        if isinstance(data, str):
            return self._without(row, name, f"caption file: {data}")
        if name.lower().endswith(".txt"):
            captions = caption_lines(data)
            if row.captions:
                self.ledger.ignored.update([TEXT_BESIDE_JSON] * (captions != row.captions))
                return row
            if row.why:  # the reason is listed although the picture has captions after all
                self.ledger.note(row.source, row.key, row.why)
            return row._replace(captions=captions)
        found = json_captions(data, self.section)
        if found is None:
            return self._without(row, name, BROKEN_JSON)
        captions, values = found
        keys.see(values)
        return row._replace(
            captions=captions,
            group=text_of(values, self.section.group_column),
            label=text_of(values, self.section.label_column),
            objects=objects_of(values, self.section.object_column),
        )

    def _without(self, row: Row, name: str, reason: str) -> Row:
        if row.captions or row.why:
            self.ledger.note(name, name, reason)
            return row
        return row._replace(why=reason)


def caption_lines(data: bytes) -> list[object]:
    r"""Return the captions of a text file, one a line; an empty line is none.

    Example:
        >>> caption_lines(b"a cat\n\na dog\r\n")
        ['a cat', 'a dog']
    """
    text = decode_text(data)
    return [line for line in text.replace("\r\n", "\n").split("\n") if line.strip()] or [text]


def decode_text(data: bytes) -> str:
    """Decode a text; bytes that are none become lone surrogates, which no caption may have."""
    try:
        return data.decode(text_encoding(data), "surrogateescape")
    except UnicodeDecodeError:  # half a character of UTF-16
        return data.decode("utf-8", "surrogateescape")


def json_captions(data: bytes, section: DataSection) -> tuple[list[object], Mapping[str, object]] | None:
    """Return the captions in a JSON object, and the object; None where the bytes are no JSON object."""
    try:
        values = json.loads(data)
    except (ValueError, RecursionError):
        return None
    if not isinstance(values, dict):
        return None
    return listed_captions(values.get(chosen(values, section.caption_column, "caption_column", CAPTIONS))), values


def _stem(name: str) -> str:
    return str(PurePosixPath(name).with_suffix(""))


def _may_be_caption(name: str) -> bool:
    own = PurePosixPath(name).name.lower()
    return not own.endswith("_stats.json") and not own.startswith(_NO_CAPTIONS)
