"""Sources whose images are separate files, and the folder that their paths are relative to."""

import os
import posixpath
import sys
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

from clipmem.base.errors import require
from clipmem.base.remote import AnyPath, RemotePath
from clipmem.base.sections import DataSection
from clipmem.data.sources.base import Source, image_gone, require_data
from clipmem.data.sources.path_probe import IMAGE_ENDINGS, parse_json
from clipmem.data.sources.records import NO_IMAGE, NO_PATH, Part, Record, examine_file, read_file

_SAMPLE = 20
_FOLDERS = 2000  # maximum number of folders to search for images


class FileSource(Source):
    """A table of captions with image files. References are absolute, or relative to the table's folder.

    Attributes:
        base: The folder that references are relative to: `data.path`, or its parent if it is a file.
        whole: Whether all images of the folder belong to the data, so that they need no search, and those that no
            record names are problems.
    """

    whole: ClassVar[bool] = False
    _images = "."  # folder of the images, relative to `base`; known when the records are read

    def __init__(self, section: DataSection) -> None:
        super().__init__(section)
        path = Path(section.path)
        self.base = path if path.is_dir() else path.parent

    @abstractmethod
    def rows(self) -> Iterator[Record]:
        """Yield one record per row (see `row_record`), counted in `ledger.read`."""

    def records(self) -> Iterator[Record]:
        """Yield one record per image, with the captions of all its rows."""
        joined: dict[str, Record] = {}
        for row in self.rows():
            if not row.reference.strip():
                self.ledger.leave_out(row.source, row.key, NO_PATH)
                continue
            path = posixpath.normpath(row.reference)
            if joined.setdefault(path, row) is not row:
                joined[path].join(row, self.ledger)
        root = "." if self.whole else os.path.relpath(find_root(self.section, list(joined), self.base), self.base)
        self._images = root = posixpath.normpath(root.replace(os.sep, "/"))
        for path, record in joined.items():
            record.key, record.reference = path, posixpath.normpath(posixpath.join(root, path))
        if not self.whole:
            self.ledger.unnamed = self._unnamed({record.reference for record in joined.values()})
        for record in joined.values():
            record.image = examine_file(self.base / record.reference)
            yield record

    def _unnamed(self, references: set[str]) -> int:
        base = self.base.absolute()  # references may be absolute
        references = {os.path.normpath(base / reference) for reference in references}
        self.ledger.folders |= (folders := {posixpath.dirname(reference) for reference in references})
        if self.section.split or len(folders) > _FOLDERS:
            return 0
        return sum(
            posixpath.join(folder, name) not in references
            for folder in folders
            for name in _names_in(Path(folder))[1]
            if name[0] != "." and name.lower().endswith(IMAGE_ENDINGS)
        )

    def read(self, references: Sequence[str]) -> list[bytes]:
        return read_files(self.base, references)

    def storage_order(self, references: Sequence[str]) -> list[int]:
        return sorted(range(len(references)), key=references.__getitem__)


class TableSource(FileSource):
    """A source in one file, `data.path`."""

    content: ClassVar[str]  # description of the file for error messages

    def __init__(self, section: DataSection) -> None:
        super().__init__(section)
        self.file = Path(section.path)
        require_data(self.file.is_file(), section, self.content)

    def document(self, *lists: str) -> list[list[dict[str, object]]]:
        """Parse the JSON file and return its lists of objects by name."""
        content = parse_json(read_file(self.file, most=sys.maxsize))  # a reason for not reading it is no JSON
        require(content is not None, f"{self.file}", "a file that is not JSON", "", "Check that the file is complete.")
        values = [content.get(name) for name in lists] if isinstance(content, dict) else [None]
        has_lists = all(isinstance(value, list) and all(isinstance(item, dict) for item in value) for value in values)
        expected = f"an object with the lists of objects {' and '.join(map(repr, lists))}"
        require(has_lists, f"{self.file}", "JSON with another structure", expected, "Set data.source to auto.")
        return values  # pyright: ignore[reportReturnType]


def row_record(source: str, path: object, part: Part, **about: Any) -> Record:
    """Return the record of one row of a table, whose image is read later."""
    return Record(source, part.key, path if isinstance(path, str) else "", NO_IMAGE, [part], **about)


def read_files(base: Path, references: Sequence[str]) -> list[bytes]:
    """Return the bytes of files in a folder."""
    contents: list[bytes] = []
    for reference in references:
        data = read_file(base / reference)
        if isinstance(data, str):
            raise image_gone(reference, data)
        contents.append(data)
    return contents


def check_root(section: DataSection) -> None:
    """Raise an `InputError` if `data.image_root` is not a folder."""
    got, expected = f"{section.image_root!r}, which is not a folder", "the folder that image paths are relative to"
    hint = "Fix it, or leave it empty to search near data.path."
    require(not section.image_root or Path(section.image_root).is_dir(), "[data] image_root", got, expected, hint)


def find_root(section: DataSection, paths: Sequence[str], base: AnyPath) -> AnyPath:
    """Return `data.image_root`, or the folder relative to which most of a sample of paths exist; else `base`."""
    check_root(section)
    if section.image_root or isinstance(base, RemotePath):  # where a search costs requests
        return Path(section.image_root) if section.image_root else base
    step = max(1, len(paths) // _SAMPLE)
    sample = paths[::step][:_SAMPLE]

    def count(folder: Path) -> int:
        # unlike `Path.is_file`, does not raise on a name that is too long
        return sum(os.path.isfile(folder / path) for path in sample)  # noqa: PTH113

    for near in (base, Path()):
        if count(near):
            return near
    level = [base, base.absolute().parent]
    around = level[1:]
    for _ in range(2):
        folders = [sorted(folder / name for name in _names_in(folder)[0] if name[0] != ".") for folder in level]
        level = [folder for inside in folders for folder in inside][: _FOLDERS + 1 - len(around)]
        around += level
    best = max(around, key=count, default=base)
    return best if count(best) else base


def _names_in(folder: Path) -> list[list[str]]:
    """Return the names of the folders, and of all other entries, in a folder."""
    try:  # os.walk takes an entry that cannot be followed, such as a loop of links, for a file
        return [*next(os.walk(folder), ("", [], []))[1:]]
    except ValueError:  # a NUL in the path
        return [[], []]
