"""CSV, TSV and JSON lines with image paths, such as open_clip's `--train-data` with filepath and title."""

from collections.abc import Iterator

from clipmem.data.sources.base import SOURCES
from clipmem.data.sources.cleaned import Cleaned
from clipmem.data.sources.columns import KEYS, Columns, find_columns, recognized
from clipmem.data.sources.files import TableSource
from clipmem.data.sources.path_probe import PathProbe
from clipmem.data.sources.records import Record
from clipmem.data.sources.text_tables import SEPARATORS, header_columns, table_rows, write_rows


@SOURCES.register("csv")
class CsvSource(TableSource):
    """A table with a header, separated by commas, tabs, semicolons or bars."""

    summary = "A table (.csv, .tsv) of image paths and captions."
    uses = KEYS | {"image_root"}
    rank = 70
    content = "a table of images and captions"
    form = ".csv"

    @classmethod
    def recognize(cls, probe: PathProbe) -> str:
        """Detect a text file whose first line has an image and a caption column."""
        found = header_columns(probe.lines[0], probe.section) if probe.is_file and probe.lines else None
        if found is None:
            return ""
        separator, names = found
        image, caption = recognized(names, probe.section)
        return f"a header with {image!r} and {caption!r}, separated by {SEPARATORS[separator]}"

    @property
    def columns(self) -> Columns | None:
        """The columns of the header."""
        names = self._names(PathProbe(str(self.file), self.section))
        return find_columns(names, self.section, what=str(self.file)) if names else None

    def _names(self, probe: PathProbe) -> list[str]:
        found = header_columns(probe.lines[0], self.section) if probe.lines else None
        return found[1] if found else []

    def rows(self) -> Iterator[Record]:
        """Yield one record per line."""
        return table_rows(self.file, self.file.name, self.section, self.ledger, form=self.form)

    def write_kept(self, cleaned: Cleaned) -> str:
        """Write the lines that stay, as they are, and copy the images that they name by relative paths."""
        root = self.base / self._images

        def keep(path: str) -> None:
            cleaned.copy_image(root, path)

        write_rows(self.file, cleaned.folder / self.file.name, self.section, cleaned, keep, form=self.form)
        return self.file.name


@SOURCES.register("jsonl")
class JsonLinesSource(CsvSource):
    """One JSON object per line, with an image path and one caption or a list."""

    summary = "JSON lines with an image path and captions."
    rank = 90
    form = ".jsonl"

    @classmethod
    def recognize(cls, probe: PathProbe) -> str:
        """Detect a text file whose first line is a JSON object with an image and a caption."""
        image, caption = recognized(_first_object(probe), probe.section)
        return f"JSON lines with {image!r} and {caption!r}" if image and caption else ""

    def _names(self, probe: PathProbe) -> list[str]:
        return list(_first_object(probe))


def _first_object(probe: PathProbe) -> dict[str, object]:
    row = probe.first_row if probe.is_file else None
    return row if isinstance(row, dict) and "annotations" not in row and "images" not in row else {}
