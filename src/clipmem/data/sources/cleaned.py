"""The output of cleaned data: which records change, and copies of what does not."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from clipmem.base.atomic import explain_write_errors, make_folder
from clipmem.base.errors import InputError, shorten


@dataclass(frozen=True)
class Cleaned:
    """A new folder for a copy of some data without suspect records.

    Attributes:
        folder: Where to write, new and empty.
        changes: Change of a record by its place (see `Part.place`): its new caption, or "" to leave it out. Records
            that are not listed stay as they are, unusable ones too.
    """

    folder: Path
    changes: Mapping[str, str]

    def removes(self, place: str) -> bool:
        """Return whether a record is left out."""
        return self.changes.get(place) == ""

    def copy(self, file: Path, name: str) -> None:
        """Copy a file, unless that name is already written; one that cannot be read belongs to an unusable record."""
        target = self.folder / name
        try:
            original = file.open("rb") if file.is_file() and not target.exists() else None
        except (OSError, ValueError):
            return
        if original is not None:
            # not flushed to disk one by one: the whole folder gets its name last
            make_folder(target.parent)
            with original, explain_write_errors(target), target.open("wb") as new:
                shutil.copyfileobj(original, new, 1 << 20)

    def copy_image(self, root: Path, path: str) -> None:
        """Copy the image that a table names by a path relative to `root`; absolute paths stay valid without a copy."""
        if not path or "\0" in path or PurePosixPath(path).is_absolute():
            return
        if ".." in PurePosixPath(path).parts:
            hint = "Write absolute paths into the table, or convert it: clipmem export pairs --to parquet."
            raise InputError(
                f"image {shorten(path)}",
                got="a path that leaves the folder of the images",
                expected="paths inside it, or absolute ones",
                hint=hint,
            )
        self.copy(root / path, path)


def replaced(value: object, caption: str) -> object:
    """Return a caption cell (see `records.listed_captions`) of the same form with one new caption."""
    if isinstance(value, dict):
        key = next((name for name in ("raw", "caption", "text") if name in value), "caption")
        return {**{name: one for name, one in value.items() if name != "tokens"}, key: caption}
    if isinstance(value, list | tuple):
        return [replaced(value[0], caption) if value and isinstance(value[0], dict) else caption]
    return caption
