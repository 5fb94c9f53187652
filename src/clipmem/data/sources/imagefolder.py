"""A folder of images with `metadata.csv`, `.jsonl` or `.parquet` (Hugging Face's imagefolder), or a text per image."""

import json
import posixpath
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

from clipmem.base.paths import atomic_write
from clipmem.base.sections import DataSection
from clipmem.data.sources.base import SOURCES, Cleaned, require_data, require_split
from clipmem.data.sources.csv_table import table_rows, write_rows
from clipmem.data.sources.files import FileSource, row_record
from clipmem.data.sources.path_probe import IMAGE_ENDINGS, PathProbe, parse_json, text_encoding
from clipmem.data.sources.records import (
    KEYS,
    KeysSeen,
    Part,
    Record,
    about,
    chosen,
    listed_captions,
    read_file,
    replaced,
)

METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
NOT_LISTED = "image missing from the metadata"
NO_IMAGE_OF_NAME = "no image with the same name"
BROKEN_JSON = "JSON that is not an object"
TEXT_UNUSED = ".txt file next to a .json file with other captions"
TEXTS = (".txt", ".json")
MOST_TEXT = 16 * 2**20
_NO_CAPTIONS = ("readme", "license", "notice")


@SOURCES.register("imagefolder")
class ImageFolderSource(FileSource):
    """Images and their captions in one folder."""

    summary = "A folder of images with metadata.csv (or .jsonl, .parquet), or a .txt or .json file per image."
    uses = KEYS | {"split"}
    rank = 30

    def __init__(self, section: DataSection) -> None:
        super().__init__(section)
        path = Path(section.path)
        if section.path and path.name in METADATA and path.is_file():
            path = path.parent
        self._folder = path
        require_data(path.is_dir(), section, "a folder with images and their captions")
        if section.split and not (path / section.split).is_dir():
            require_split(section.split, (folder.name for folder in path.iterdir() if folder.is_dir()), kind="folder")

    @classmethod
    def recognize(cls, probe: PathProbe) -> str:
        if probe.is_file and probe.path.name in METADATA:
            return f"the file {probe.path.name} of an imagefolder"
        if not probe.is_dir:
            return ""
        named = [name for name in probe.files if PurePosixPath(name).name in METADATA]
        if named:
            return f"a folder with {named[0]}"
        stems = {_stem(name) for name in probe.with_suffix(*TEXTS)}
        captioned = sum(_stem(name) in stems for name in probe.with_suffix(*IMAGE_ENDINGS))
        return f"a folder where {captioned:,} images have a caption file" if captioned else ""

    @property
    def base(self) -> Path:
        """The folder."""
        return self._folder

    def _root(self, paths: object) -> str:  # noqa: ARG002
        return "."

    def _unnamed(self, references: set[str]) -> int:  # noqa: ARG002
        return 0  # they are listed as problems

    def _files(self, probe: PathProbe) -> tuple[list[str], list[str], list[str], list[str]]:
        """Return all files, and of these the metadata, the images, and the caption files if there are no metadata."""
        inside = f"{self.section.split}/" if self.section.split else ""
        files = [f"{inside}{name}" for name in probe.all_files()]
        tables = [name for name in files if PurePosixPath(name).name in METADATA]
        images = [name for name in files if name.lower().endswith(IMAGE_ENDINGS)]
        texts = [] if tables else [name for name in files if name.lower().endswith(TEXTS) and _may_be_caption(name)]
        return files, tables, images, texts

    def write_kept(self, cleaned: Cleaned) -> str:
        """Write metadata or caption files of the images that stay, and copy all other files."""
        files, tables, images, texts = self._files(PathProbe(str(self._folder / self.section.split)))
        stays = {_stem(name) for name in images if not cleaned.removes(name)}
        gone = {_stem(name) for name in images if cleaned.removes(name)} - stays
        new = {_stem(name): caption for name, caption in cleaned.changes.items() if caption}
        for name in files:
            if name in tables:
                original, folder = self._folder / name, posixpath.dirname(name)
                write_rows(original, cleaned.folder / name, self.section, cleaned, folder=folder)
            elif name in texts and _stem(name) in new:
                data = read_file(self._folder / name, most=MOST_TEXT)
                data = b"" if isinstance(data, str) else data
                atomic_write(cleaned.folder / name, corrected_text(name, data, new[_stem(name)], self.section))
            elif not cleaned.removes(name) and not (name in texts and _stem(name) in gone):
                cleaned.copy(self._folder / name, name)
        return ""

    def rows(self) -> Iterator[Record]:
        probe = PathProbe(str(self._folder / self.section.split))
        files, tables, images, texts = self._files(probe)
        if tables:
            yield from self._listed(tables, images)
        else:
            yield from self._captioned(texts, images)
        probe.count_others(self.ledger, files, {*tables, *images, *texts})

    def _listed(self, tables: list[str], images: list[str]) -> Iterator[Record]:
        named: set[str] = set()
        for table in tables:
            folder = PurePosixPath(table).parent
            for row in table_rows(self._folder / table, table, self.section, self.ledger):
                if row.reference.strip():
                    row.reference = posixpath.normpath(str(folder / row.reference))
                    named.add(row.reference)
                yield row
        for name in images:
            if name not in named:
                self.ledger.note(name, name, NOT_LISTED)

    def _captioned(self, texts: list[str], images: list[str]) -> Iterator[Record]:
        by_stem: dict[str, list[str]] = {}
        for name in sorted(texts, key=lambda name: (PurePosixPath(name).suffix.lower(), name)):  # JSON first
            by_stem.setdefault(_stem(name), []).append(name)
        keys = KeysSeen(self.section)
        for name in images:
            self.ledger.read += 1
            row = row_record(name, name, Part(name, []))
            for text in by_stem.get(_stem(name), ()):
                self._add_text(row, text, keys)
            yield row
        keys.check(f"the JSON files in {self.section.path}")
        stems = {_stem(name) for name in images}
        for name in texts:
            if _stem(name) not in stems:
                self.ledger.read += 1
                self.ledger.leave_out(name, name, NO_IMAGE_OF_NAME)

    def _add_text(self, row: Record, name: str, keys: KeysSeen) -> None:
        """Add the content of a text or JSON file to an image; the first with captions is used."""
        data, [part] = read_file(self._folder / name, most=MOST_TEXT), row.parts
        if isinstance(data, str):
            self._add_reason(row, name, f"caption file: {data}")
        elif name.lower().endswith(".txt"):
            captions = caption_lines(data)
            if part.captions:
                self.ledger.ignored.update([TEXT_UNUSED] * (captions != part.captions))
                return
            if part.why:  # listed although the image has captions after all
                self.ledger.note(row.source, row.key, part.why)
            row.parts = [part._replace(captions=captions)]
        elif (parsed := json_captions(data, self.section)) is None:
            self._add_reason(row, name, BROKEN_JSON)
        else:
            captions, values = parsed
            keys.see(values)
            row.parts = [part._replace(captions=captions)]
            for field, value in about(values, self.section).items():
                setattr(row, field, value)

    def _add_reason(self, row: Record, name: str, reason: str) -> None:
        [part] = row.parts
        if part.captions or part.why:
            self.ledger.note(name, name, reason)
        else:
            row.parts = [part._replace(why=reason)]


def caption_lines(data: bytes) -> list[object]:
    """Return the captions of a text file, one per non-empty line."""
    text = decode_text(data)
    return [line for line in text.replace("\r\n", "\n").split("\n") if line.strip()] or [text]


def decode_text(data: bytes) -> str:
    """Decode a text; invalid bytes become lone surrogates, which captions must not have."""
    try:
        return data.decode(text_encoding(data), "surrogateescape")
    except UnicodeDecodeError:  # truncated UTF-16
        return data.decode("utf-8", "surrogateescape")


def json_captions(data: bytes, section: DataSection) -> tuple[list[object], Mapping[str, object]] | None:
    """Return the captions of a JSON object, and the object; None for other JSON."""
    values = parse_json(data)
    if not isinstance(values, dict):
        return None
    return listed_captions(values.get(chosen(tuple(values), section.caption_column, "caption_column"))), values


def corrected_text(name: str, data: bytes, caption: str, section: DataSection) -> bytes:
    """Return a caption file with another caption; other values of a JSON object stay."""
    if name.lower().endswith(".txt"):
        return caption.encode()
    values = parse_json(data)
    column = chosen(tuple(values), section.caption_column, "caption_column") if isinstance(values, dict) else ""
    return json.dumps({**values, column: replaced(values[column], caption)}).encode() if column else data  # pyright: ignore


def _stem(name: str) -> str:
    return str(PurePosixPath(name).with_suffix(""))


def _may_be_caption(name: str) -> bool:
    file_name = PurePosixPath(name).name.lower()
    return not file_name.endswith("_stats.json") and not file_name.startswith(_NO_CAPTIONS)
