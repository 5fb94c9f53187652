"""Folders of images: with metadata, with a text per image, or with a folder per class.

Metadata are `metadata.csv`, `.jsonl` or `.parquet` (Hugging Face's imagefolder). Images of classes are
`ROOT/CLASS/NAME.jpg`, as in ImageNet and torchvision's ImageFolder.
"""

import json
import posixpath
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

from clipmem.base.errors import require
from clipmem.base.paths import atomic_write
from clipmem.base.sections import DataSection
from clipmem.data.sources import records
from clipmem.data.sources.base import SOURCES, Cleaned, Source, require_data, require_split
from clipmem.data.sources.csv_table import table_rows, write_rows
from clipmem.data.sources.files import FileSource, read_files, row_record
from clipmem.data.sources.path_probe import IMAGE_ENDINGS, PathProbe, parse_json, text_encoding
from clipmem.data.sources.records import Part, Record

METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
NOT_LISTED = "image missing from the metadata"
NO_IMAGE_OF_NAME = "no image with the same name"
BROKEN_JSON = "JSON that is not an object"
TEXT_UNUSED = ".txt file next to a .json file with other captions"
TEXTS = (".txt", ".json")
MOST_TEXT = 16 * 2**20
LOOSE = "image outside of class folders"
_NO_CAPTIONS = ("readme", "license", "notice")


@SOURCES.register("imagefolder")
class ImageFolderSource(FileSource):
    """Images and their captions in one folder."""

    summary = "A folder of images with metadata.csv (or .jsonl, .parquet), or a .txt or .json file per image."
    uses = records.KEYS | {"split"}
    rank = 30
    whole = True

    def __init__(self, section: DataSection) -> None:
        super().__init__(section)
        path = Path(section.path)
        if section.path and path.name in METADATA and path.is_file():
            path = path.parent
        self.base = path
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

    def _files(self, probe: PathProbe) -> tuple[list[str], list[str], list[str], list[str]]:
        """Return all files, and of these the metadata, the images, and the caption files if there are no metadata."""
        inside = f"{self.section.split}/" if self.section.split else ""
        files = [f"{inside}{name}" for name in probe.all_files()]
        tables = [name for name in files if PurePosixPath(name).name in METADATA]
        images = [name for name in files if name.lower().endswith(IMAGE_ENDINGS)]
        texts = {name: PurePosixPath(name).name.lower() for name in files if name.lower().endswith(TEXTS)}
        captions = [
            name
            for name, lower in texts.items()
            if not tables and not lower.endswith("_stats.json") and not lower.startswith(_NO_CAPTIONS)
        ]
        return files, tables, images, captions

    def write_kept(self, cleaned: Cleaned) -> str:
        """Write metadata or caption files of the images that stay, and copy all other files."""
        files, tables, images, texts = self._files(PathProbe(str(self.base / self.section.split)))
        stays = {_stem(name) for name in images if not cleaned.removes(name)}
        gone = {_stem(name) for name in images if cleaned.removes(name)} - stays
        new = {_stem(name): (name, caption) for name, caption in cleaned.changes.items() if caption}
        for name in images if texts else ():
            other, caption = new.get(_stem(name), (name, None))
            # a new caption must not change the text of another usable image
            fits = cleaned.changes.get(name) in {caption, ""} or isinstance(records.examine_file(self.base / name), str)
            got, expected = f"a new caption, and another or none for {name!r}", "the same, as they share a file"
            hint = "Mark both alike, or give each image a file of another name."
            require(fits, f"image {other!r}", got, expected, hint)
        for name in files:
            if name in tables:
                original, folder = self.base / name, posixpath.dirname(name)
                # they may be in hidden or linked folders, whose files are not listed
                for path in write_rows(original, cleaned.folder / name, self.section, cleaned, folder=folder):
                    cleaned.copy_image(self.base, path)
            elif name in texts and _stem(name) in new:
                data = records.read_file(self.base / name, most=MOST_TEXT)
                data = b"" if isinstance(data, str) else data
                atomic_write(cleaned.folder / name, corrected_text(name, data, new[_stem(name)][1], self.section))
            elif not cleaned.removes(name) and not (name in texts and _stem(name) in gone):
                cleaned.copy(self.base / name, name)
        return ""

    def rows(self) -> Iterator[Record]:
        probe = PathProbe(str(self.base / self.section.split))
        files, tables, images, texts = self._files(probe)
        if tables:
            named: set[str] = set()
            for table in tables:
                folder = PurePosixPath(table).parent
                for row in table_rows(self.base / table, table, self.section, self.ledger):
                    if row.reference.strip():
                        row.reference = posixpath.normpath(str(folder / row.reference))
                        named.add(row.reference)
                    yield row
            for name in images:
                if name not in named:
                    self.ledger.note(name, name, NOT_LISTED)
        else:
            yield from self._captioned(texts, images)
        probe.count_others(self.ledger, files, {*tables, *images, *texts})

    def _captioned(self, texts: list[str], images: list[str]) -> Iterator[Record]:
        by_stem: dict[str, list[str]] = {}
        for name in sorted(texts, key=lambda name: (PurePosixPath(name).suffix.lower(), name)):  # JSON first
            by_stem.setdefault(_stem(name), []).append(name)
        keys: set[str] = set()
        for name in images:
            self.ledger.read += 1
            row = row_record(name, name, Part(name, []))
            for text in by_stem.get(_stem(name), ()):
                self._add_text(row, text, keys)
            yield row
        records.check_keys(self.section, keys, f"the JSON files in {self.section.path}")
        stems = {_stem(name) for name in images}
        for name in texts:
            if _stem(name) not in stems:
                self.ledger.read += 1
                self.ledger.leave_out(name, name, NO_IMAGE_OF_NAME)

    def _add_text(self, row: Record, name: str, keys: set[str]) -> None:
        """Add the content of a text or JSON file to an image; the first with captions is used."""
        data, [part], reason = records.read_file(self.base / name, most=MOST_TEXT), row.parts, ""
        if isinstance(data, str):
            reason = f"caption file: {data}"
        elif name.lower().endswith(".txt"):
            captions = caption_lines(data)
            if part.captions:
                self.ledger.ignored.update([TEXT_UNUSED] * (captions != part.captions))
                return
            if part.why:  # listed although the image has captions after all
                self.ledger.note(row.source, row.key, part.why)
            row.parts = [part._replace(captions=captions)]
        elif (parsed := json_captions(data, self.section)) is None:
            reason = BROKEN_JSON
        else:
            captions, values = parsed
            keys.update(values if records.named_columns(self.section) else ())
            row.parts = [part._replace(captions=captions)]
            for field, value in records.about(values, self.section).items():
                setattr(row, field, value)
        if reason and (part.captions or part.why):
            self.ledger.note(name, name, reason)
        elif reason:
            row.parts = [part._replace(why=reason)]


@SOURCES.register("classfolder")
class ClassFolderSource(Source):
    """A folder of classes, each a folder of images."""

    summary = "Images in one folder per class, for evaluation."

    def __init__(self, section: DataSection) -> None:
        super().__init__(section)
        self._root = Path(section.path)
        folders = sorted(folder for folder in self._root.iterdir() if folder.is_dir()) if self._root.is_dir() else []
        # classes may be links to folders
        self._classes = {folder.name: PathProbe(str(folder)) for folder in folders if not folder.name.startswith(".")}
        has_images = any(probe.with_suffix(*IMAGE_ENDINGS) for probe in self._classes.values())
        require_data(has_images, section, "a folder with one folder of images per class")

    def records(self) -> Iterator[Record]:
        seen: dict[bytes, str] = {}
        for label, probe in self._classes.items():
            name_of_class = label.replace("-", " ").replace("_", " ").strip() or label
            files = list(probe.all_files())
            names = [name for name in files if name.lower().endswith(IMAGE_ENDINGS)]
            for reference in (f"{label}/{name}" for name in names):
                self.ledger.read += 1
                image = records.examine_file(self._root / reference)
                other = label if isinstance(image, str) else seen.setdefault(image.digest(), label)
                subject = f"{self.section.path}, {reference}"
                got = f"the same image in the classes {other!r} and {label!r}"
                require(other == label, subject, got, "every image in one class", "Remove one of them.")
                yield Record(reference, reference, reference, image, [Part(reference, [name_of_class])], label=label)
            probe.count_others(self.ledger, files, set(names))
        for file in sorted(self._root.iterdir()):
            if file.name[0] != "." and file.name.lower().endswith(IMAGE_ENDINGS) and file.is_file():
                self.ledger.note(file.name, file.name, LOOSE)

    def read(self, references: Sequence[str]) -> list[bytes]:
        return read_files(self._root, references)


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
    column = records.chosen(tuple(values), section.caption_column, "caption_column")
    return records.listed_captions(values.get(column)), values


def corrected_text(name: str, data: bytes, caption: str, section: DataSection) -> bytes:
    """Return a caption file with another caption; other values of a JSON object stay."""
    if name.lower().endswith(".txt"):
        # readers drop a byte order mark, and in tars a final line break
        encoding = "utf-8-sig" if caption.startswith("\ufeff") else "utf-8"
        return caption.encode(encoding) + b"\r\n" * caption.endswith(("\n", "\r"))
    values = parse_json(data)
    column = records.chosen(tuple(values), section.caption_column, "caption_column") if isinstance(values, dict) else ""
    return json.dumps({**values, column: records.replaced(values[column], caption)}).encode() if column else data  # pyright: ignore


def _stem(name: str) -> str:
    return str(PurePosixPath(name).with_suffix(""))
