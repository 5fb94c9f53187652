"""Sources whose pictures are files of their own: rows that name a path, and where those paths start from.

Rows with the same path are one pair. Paths are looked for from the table's own folder, from the working folder, then in
the folders around; `data.image_root` says it outright. The search looks at a sample of the names: where two folders
hold pictures of the same names, the one with more of them is taken, and only `data.image_root` can tell better.
"""

import os
import posixpath
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from clipmem.base.errors import InputError
from clipmem.base.recipes import DataSection
from clipmem.data.sources.base import RecordSource
from clipmem.data.sources.look import PICTURES
from clipmem.data.sources.records import (
    NO_PATH,
    OTHER_VALUES,
    Part,
    Record,
    examine_file,
    loses_values,
    read_file,
)

_SAMPLE = 20
_FOLDERS = 2000  # that are searched for the pictures


class Row(NamedTuple):
    """One line of a table of captions."""

    source: str
    key: str
    path: object
    captions: Sequence[object]
    group: str = ""
    label: str = ""
    objects: Sequence[str] = ()
    why: str = ""


class FileSource(RecordSource):
    """A table of captions beside files of pictures. References are paths from the table's folder, or whole paths."""

    @property
    def base(self) -> Path:
        """The folder that references start from: the one that `data.path` is, or lies in."""
        path = Path(self.section.path)
        return path if path.is_dir() else path.parent

    @abstractmethod
    def rows(self) -> Iterator[Row]:
        """Yield the rows in the source's order; each is counted in `ledger.read`, and so is one that is listed."""

    def records(self) -> Iterator[Record]:
        """Yield one record a picture, with the captions of all its rows."""
        grouped: dict[str, list[Row]] = {}
        for row in self.rows():
            if isinstance(row.path, str) and row.path.strip():
                grouped.setdefault(posixpath.normpath(row.path), []).append(row)
            else:
                self.ledger.leave_out(row.source, row.key, NO_PATH)
        root = self._root(list(grouped))
        references = {path: posixpath.normpath(posixpath.join(root, path)) for path in grouped}
        self.ledger.unnamed = self._unnamed(set(references.values()))
        for path, rows in grouped.items():
            yield self._joined(rows, path, references[path])

    def _unnamed(self, references: set[str]) -> int:
        """Count the pictures beside those that rows name; a split leaves the others out on purpose."""
        folders = {posixpath.dirname(reference) for reference in references}
        if self.section.split or len(folders) > _FOLDERS:
            return 0
        found = (posixpath.join(folder, name) for folder in folders for name in _pictures_in(self.base / folder))
        return sum(posixpath.normpath(name) not in references for name in found)

    def _joined(self, rows: Sequence[Row], path: str, reference: str) -> Record:
        first = rows[0]
        for row in rows[1:]:
            if loses_values((first.group, first.label, first.objects), (row.group, row.label, row.objects)):
                self.ledger.note(row.source, row.key, OTHER_VALUES)
        return Record(
            first.source,
            path,
            reference,
            examine_file(self.base / reference),
            [Part(row.key, row.captions, row.why) for row in rows],
            group=first.group,
            label=first.label,
            objects=first.objects,
        )

    def _root(self, paths: Sequence[str]) -> str:
        """Return the folder that the rows' paths start from, seen from `base`."""
        found = named_root(self.section) or find_root(paths, self.base)
        return posixpath.normpath(os.path.relpath(found, self.base).replace(os.sep, "/"))

    def read(self, references: Sequence[str]) -> list[bytes]:
        """Return the bytes of these files."""
        return [_bytes_of(self.base, reference) for reference in references]

    def storage_order(self, references: Sequence[str]) -> list[int]:
        """Return the order of the paths."""
        return sorted(range(len(references)), key=references.__getitem__)


def _bytes_of(base: Path, reference: str) -> bytes:
    data = read_file(base / reference)
    if isinstance(data, str):
        raise InputError(
            f"picture {reference!r}",
            got=data,
            expected=f"the file that was in {base} when the pairs were listed",
            hint="Put it back, or start a study in another run folder.",
        )
    return data


def named_root(section: DataSection) -> Path | None:
    """Return the folder that `data.image_root` names, or None when it is empty."""
    if not section.image_root:
        return None
    root = Path(section.image_root)
    if not root.is_dir():
        raise InputError(
            "[data] image_root",
            got=f"{section.image_root!r}, where there is no folder",
            expected="the folder that the paths of the pictures start from",
            hint="Mend it, or leave it empty: the folders around data.path are searched then.",
        )
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


def _folders_in(folder: Path) -> list[Path]:
    try:
        with os.scandir(folder) as entries:
            return sorted(folder / entry.name for entry in entries if entry.name[0] != "." and entry.is_dir())
    except OSError:
        return []


def _pictures_in(folder: Path) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            return [one.name for one in entries if one.name[0] != "." and one.name.lower().endswith(PICTURES)]
    except (OSError, ValueError):
        return []
