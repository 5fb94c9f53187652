"""CSV, TSV and JSON lines that name files of pictures: open_clip's `--train-data` with filepath and title, and kin."""

import json
from collections.abc import Iterator
from pathlib import Path

from clipmem.base.errors import InputError
from clipmem.base.recipes import DataSection
from clipmem.data.sources.base import SOURCES
from clipmem.data.sources.columns import KEYS, Columns, find_columns, recognised
from clipmem.data.sources.files import FileSource, Row
from clipmem.data.sources.look import Look
from clipmem.data.sources.text_tables import SEPARATORS, header_columns, table_rows


def need_file(section: DataSection, kind: str) -> Path:
    """Return the file that `data.path` names."""
    path = Path(section.path)
    if not section.path or not path.is_file():
        raise InputError(
            "[data] path",
            got=f"{section.path!r}, where there is no file",
            expected=kind,
            hint="Set data.path.",
        )
    return path


@SOURCES.register("csv")
class CsvSource(FileSource):
    """A table with a header; commas, tabs, semicolons or bars between the columns."""

    uses = KEYS | {"image_root"}
    form = ".csv"

    def __init__(self, section: DataSection) -> None:
        super().__init__(section)
        self._file = need_file(section, "a table of pictures and captions")

    @classmethod
    def recognise(cls, look: Look) -> str:
        """A text file whose first line names a picture and a caption column."""
        found = header_columns(look.lines[0], look.section) if look.is_file and look.lines else None
        if found is None:
            return ""
        separator, names = found
        image, caption = recognised(names, look.section)
        return f"a header with {image!r} and {caption!r}, separated by {SEPARATORS[separator]}"

    @property
    def columns(self) -> Columns | None:
        """The columns that the first line names."""
        names = self._names(Look(str(self._file), self.section))
        return find_columns(names, self.section, what=str(self._file)) if names else None

    def _names(self, look: Look) -> list[str]:
        found = header_columns(look.lines[0], self.section) if look.lines else None
        return found[1] if found else []

    def rows(self) -> Iterator[Row]:
        """Yield one row a line."""
        return table_rows(self._file, self._file.name, self.section, self.ledger, form=self.form)


@SOURCES.register("jsonl")
class JsonLinesSource(CsvSource):
    """One JSON object a line, with a picture's path and one caption or a list of them."""

    form = ".jsonl"

    @classmethod
    def recognise(cls, look: Look) -> str:
        """A text file whose first line is a JSON object with a picture and a caption."""
        image, caption = recognised(first_object(look), look.section)
        return f"lines of JSON with {image!r} and {caption!r}" if image and caption else ""

    def _names(self, look: Look) -> list[str]:
        return list(first_object(look))


def first_object(look: Look) -> dict[str, object]:
    """Return the JSON object in the first line of a file; nothing where there is none."""
    try:
        row = json.loads(look.lines[0]) if look.is_file and look.lines else None
    except (ValueError, RecursionError):
        return {}
    return row if isinstance(row, dict) and "annotations" not in row and "images" not in row else {}
