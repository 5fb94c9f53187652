"""Sources whose images are files of their own: rows that name a path, and where those paths start from."""

import os
import posixpath
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

from clipmem.base.require import require
from clipmem.base.sections import DataSection
from clipmem.data.sources.base import Source, image_gone, require_data
from clipmem.data.sources.path_probe import IMAGE_ENDINGS, parse_json
from clipmem.data.sources.records import NO_IMAGE, NO_PATH, Part, Record, examine_file, read_file

_SAMPLE = 20
_FOLDERS = 2000  # that are searched for the images


class FileSource(Source):
    """A table of captions beside files of images. References are paths from the table's folder, or whole paths."""

    @property
    def base(self) -> Path:
        """The folder that references start from: the one that `data.path` is, or lies in."""
        path = Path(self.section.path)
        return path if path.is_dir() else path.parent

    @abstractmethod
    def rows(self) -> Iterator[Record]:
        """Yield one record a row, see `row_record`; each is counted in `ledger.read`, and so is one that is listed."""

    def records(self) -> Iterator[Record]:
        """Yield one record an image, with the captions of all its rows."""
        joined: dict[str, Record] = {}
        for row in self.rows():
            if not row.reference.strip():
                self.ledger.leave_out(row.source, row.key, NO_PATH)
                continue
            path = posixpath.normpath(row.reference)
            if joined.setdefault(path, row) is not row:
                joined[path].join(row, self.ledger)
        root = self._root(list(joined))
        for path, record in joined.items():
            record.key, record.reference = path, posixpath.normpath(posixpath.join(root, path))
        self.ledger.unnamed = self._unnamed({record.reference for record in joined.values()})
        for record in joined.values():
            record.image = examine_file(self.base / record.reference)
            yield record

    def _unnamed(self, references: set[str]) -> int:
        """Count the images beside those that rows name; a split leaves the others out on purpose."""
        folders = {posixpath.dirname(reference) for reference in references}
        if self.section.split or len(folders) > _FOLDERS:
            return 0
        found = (posixpath.join(folder, name) for folder in folders for name in _images_in(self.base / folder))
        return sum(posixpath.normpath(name) not in references for name in found)

    def _root(self, paths: Sequence[str]) -> str:
        """Return the folder that the rows' paths start from, seen from `base`."""
        found = named_root(self.section) or find_root(paths, self.base)
        return posixpath.normpath(os.path.relpath(found, self.base).replace(os.sep, "/"))

    def read(self, references: Sequence[str]) -> list[bytes]:
        """Return the bytes of these files."""
        return read_files(self.base, references)

    def storage_order(self, references: Sequence[str]) -> list[int]:
        """Return the order of the paths."""
        return sorted(range(len(references)), key=references.__getitem__)


class TableSource(FileSource):
    """A source that `data.path` names one file of."""

    holds: ClassVar[str]  # what the file is, for the message where there is none

    def __init__(self, section: DataSection) -> None:
        super().__init__(section)
        self.file = Path(section.path)
        require_data(self.file.is_file(), section, self.holds)

    def document(self, *lists: str) -> list[list[dict[str, object]]]:
        """Parse a JSON file that holds a whole data set, and return the lists of objects that it has under names."""
        try:
            data = self.file.read_bytes()
        except OSError:
            data = b""
        found = parse_json(data)
        require(found is not None, f"{self.file}", "a file that is not JSON", "", "Check that it was copied whole.")
        values = [found.get(name) for name in lists] if isinstance(found, dict) else [None]
        right = all(isinstance(one, list) and all(isinstance(item, dict) for item in one) for one in values)
        expected = f"an object with lists of objects as {' and '.join(map(repr, lists))}"
        require(right, f"{self.file}", "JSON of another form", expected, "Set data.source to auto.")
        return values  # pyright: ignore[reportReturnType]


def row_record(source: str, path: object, part: Part, **about: Any) -> Record:
    """Make the record of one row of a table: its image is looked at later, and its path need not be text."""
    return Record(source, part.key, path if isinstance(path, str) else "", NO_IMAGE, [part], **about)


def read_files(base: Path, references: Sequence[str]) -> list[bytes]:
    """Return the bytes of files below a folder."""
    found: list[bytes] = []
    for reference in references:
        data = read_file(base / reference)
        if isinstance(data, str):
            raise image_gone(reference, data)
        found.append(data)
    return found


def named_root(section: DataSection) -> Path | None:
    """Return the folder that `data.image_root` names, or None when it is empty."""
    if not section.image_root:
        return None
    root = Path(section.image_root)
    got = f"{section.image_root!r}, where there is no folder"
    expected = "the folder that the paths of the images start from"
    hint = "Correct it, or leave it empty: the folders around data.path are searched then."
    require(root.is_dir(), "[data] image_root", got, expected, hint)
    return root


def find_root(paths: Sequence[str], base: Path) -> Path:
    """Return the folder from which most of a sample of paths lead to files; `base` when none does."""
    step = max(1, len(paths) // _SAMPLE)
    sample = paths[::step][:_SAMPLE]

    def there(folder: Path) -> int:
        return sum(_is_file(folder / path) for path in sample)

    for near in (base, Path()):
        if there(near):
            return near
    around = list(_folders_around(base))
    best = max(around, key=there, default=base)
    return best if there(best) else base


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a path with a NUL, or longer than the system allows
        return False


def _folders_around(base: Path) -> Iterator[Path]:
    level, left = [base, base.absolute().parent], _FOLDERS
    yield level[1]
    for _ in range(2):
        level = [inside for folder in level for inside in _folders_in(folder)][:left]
        yield from level
        left -= len(level)


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return [entry for entry in entries if entry.name[0] != "."]
    except (OSError, ValueError):
        return []


def _folders_in(folder: Path) -> list[Path]:
    return sorted(folder / entry.name for entry in _entries(folder) if entry.is_dir())


def _images_in(folder: Path) -> list[str]:
    return [entry.name for entry in _entries(folder) if entry.name.lower().endswith(IMAGE_ENDINGS)]
