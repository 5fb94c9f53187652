"""CSV, TSV and JSON lines with image paths, such as open_clip's `--train-data` with filepath and title.

Their rows, and those of Parquet without images, are also the metadata of image folders.
"""

import codecs
import contextlib
import csv
import io
import json
import posixpath
import sys
from collections import deque
from collections.abc import Callable, Generator, Iterator
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from clipmem.base.errors import require, shorten
from clipmem.base.paths import atomic_file, parsing
from clipmem.base.sections import DataSection
from clipmem.data.skipped import Ledger
from clipmem.data.sources import records
from clipmem.data.sources.base import SOURCES, Cleaned
from clipmem.data.sources.files import TableSource, row_record
from clipmem.data.sources.path_probe import IMAGE_ENDINGS, PathProbe, parse_json, text_encoding
from clipmem.data.sources.records import Columns, Part, Record
from clipmem.data.sources.rows import ParquetRows, edited, values_of

SEPARATORS = {",": "commas", "\t": "tabs", ";": "semicolons", "|": "bars"}
BROKEN_LINE = "line that is not JSON"
OPEN_QUOTE = "unclosed quote"
FEW_CELLS = "fewer cells than columns"
MANY_CELLS = "more cells than columns"
_NAN = {"nan", "NaN"}
_MARKS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))
_MOST_LINES = 1000  # per row


@SOURCES.register("csv")
class CsvSource(TableSource):
    """A table with a header, separated by commas, tabs, semicolons or bars."""

    summary = "A table (.csv, .tsv) of image paths and captions."
    uses = records.KEYS | {"image_root"}
    rank = 70
    content = "a table of images and captions"
    form = ".csv"

    @classmethod
    def recognize(cls, probe: PathProbe) -> str:
        header = header_columns(probe.lines[0], probe.section) if probe.is_file and probe.lines else None
        if header is None:
            return ""
        separator, names = header
        image, caption = records.recognized(names, probe.section)
        return f"a header with {image!r} and {caption!r}, separated by {SEPARATORS[separator]}"

    @property
    def columns(self) -> Columns | None:
        names = self._names(PathProbe(str(self.file), self.section))
        return records.find_columns(names, self.section, subject=str(self.file)) if names else None

    @classmethod
    def _names(cls, probe: PathProbe) -> list[str]:
        header = header_columns(probe.lines[0], probe.section) if probe.lines else None
        return header[1] if header else []

    def rows(self) -> Iterator[Record]:
        return table_rows(self.file, self.file.name, self.section, self.ledger, form=self.form)

    def write_kept(self, cleaned: Cleaned) -> str:
        """Write the lines that stay, as they are, and copy the images that they name by relative paths."""
        for path in write_rows(self.file, cleaned.folder / self.file.name, self.section, cleaned, form=self.form):
            cleaned.copy_image(self.base / self._images, path)
        return self.file.name


@SOURCES.register("jsonl")
class JsonLinesSource(CsvSource):
    """One JSON object per line, with an image path and one caption or a list."""

    summary = "JSON lines with an image path and captions."
    rank = 90
    form = ".jsonl"

    @classmethod
    def recognize(cls, probe: PathProbe) -> str:
        image, caption = records.recognized(cls._names(probe), probe.section)
        return f"JSON lines with {image!r} and {caption!r}" if image and caption else ""

    @classmethod
    def _names(cls, probe: PathProbe) -> list[str]:
        row = probe.first_row if probe.is_file else None
        return list(row) if isinstance(row, dict) and "annotations" not in row and "images" not in row else []


class Line(NamedTuple):
    """A row of a text file as it stands there, with its record if it is usable, and how to write another caption."""

    text: str
    row: Record | None = None
    corrected: Callable[[str], str] = str


def _line_end(text: str) -> str:
    return text[len(text.rstrip("\r\n")) :]


@contextlib.contextmanager
def open_text(path: Path) -> Generator[Iterator[str]]:
    """Open a text file by lines; invalid bytes become lone surrogates, which captions must not have."""
    with path.open("rb") as stream:
        encoding = text_encoding(stream.read(2))
    with path.open(encoding=encoding, errors="surrogateescape", newline="") as stream:
        yield stream


def split_line(line: str, separator: str) -> list[str]:
    """Split one line of a CSV file."""
    return next(csv.reader([line], delimiter=separator), [])


def csv_lines(
    stream: Iterator[str], separator: str, is_row: Callable[[str], bool], *, first: int = 1
) -> Iterator[tuple[int, str, list[str] | None]]:
    """Yield the rows of a CSV file, and blank lines: number of the first line, text, and cells.

    A quoted cell may span several lines. If it would swallow a line that is a row itself (`is_row`), or does not end,
    the cells are None and the following lines are read on their own.
    """
    ahead: deque[str] = deque()
    number = first
    while line := ahead.popleft() if ahead else next(stream, ""):
        cells, is_open = _cells(line, separator)
        more: list[str] = []
        while is_open and len(more) < _MOST_LINES and (following := ahead.popleft() if ahead else next(stream, "")):
            more.append(following)
            if is_row(following):
                break
            if following.count('"') % 2:
                cells, _ = _cells(line + "".join(more), separator, strict=True)
                break
        if is_open and cells is None:
            ahead.extendleft(reversed(more))
            more = []
        yield number, line + "".join(more), cells
        number += 1 + len(more)


def _cells(text: str, separator: str, *, strict: bool = False) -> tuple[list[str] | None, bool]:
    """Split a line; (None, True) if a quote is open at its end."""
    lines = iter([text, ""])  # the second is read if a quote is open
    try:
        cells = next(csv.reader(lines, delimiter=separator, strict=strict), [])
    except csv.Error:
        return None, False
    return (None, True) if next(lines, None) is None else (cells, False)


def header_columns(line: str, section: DataSection) -> tuple[str, list[str]] | None:
    """Return separator and names of a CSV header with an image and a caption column, or None."""
    for separator in SEPARATORS:
        names = [name.strip() for name in split_line(line, separator)]
        if all(records.recognized(names, section)):
            return separator, names
    return None


def table_rows(path: Path, source: str, section: DataSection, ledger: Ledger, *, form: str = "") -> Iterator[Record]:
    """Yield the rows of a table."""
    form = form or path.suffix.lower()
    with parsing(f"{path}", "not readable", (OSError, UnicodeError, pa.ArrowException)):
        if form != ".parquet":
            lines = (_jsonl_lines if form == ".jsonl" else csv_rows)(path, source, section, ledger)
            yield from (line.row for line in lines if line.row)
            return
        file = ParquetRows(path)
        columns = records.find_columns(file.schema.names, section, subject=f"{path}")
        for first, batch in file.batches(columns.used):
            ledger.read += batch.num_rows
            values = zip(*(values_of(batch.column(name)) for name in columns.used), strict=True)
            for number, cells in enumerate(values, first):
                row = dict(zip(columns.used, cells, strict=True))
                part = Part(f"row {number}", records.listed_captions(row[columns.captions]))
                yield row_record(source, row[columns.image], part, **records.about(row, section))


def write_rows(
    original: Path, file: Path, section: DataSection, cleaned: Cleaned, *, form: str = "", folder: str = ""
) -> list[str]:
    """Write the rows of a table that stay to `file`, text in its encoding and as it is.

    Args:
        original: The table.
        file: The new table.
        section: The `[data]` section, which may name columns.
        cleaned: Which rows change.
        form: The file extension of its format, if the name has another.
        folder: The table's folder, relative to that of the data.

    Returns:
        The normalized paths of the images that stay, relative to the folder of the data.
    """
    form = form or original.suffix.lower()
    paths: list[str] = []
    if form == ".parquet":
        rows = ParquetRows(original)
        columns = records.find_columns(rows.schema.names, section, subject=f"{original}")
        with atomic_file(file) as stream, rows.writer(stream) as writer:
            for _, batch in rows.batches(rows.schema.names):
                places = [_place(path, folder) for path in values_of(batch.column(columns.image))]
                writer.write_batch(edited(batch, columns.captions, list(map(cleaned.changes.get, places))))
                paths += [position for position in places if position and not cleaned.removes(position)]
        return paths
    with original.open("rb") as opened:
        head = opened.read(3)
    mark, encoding = next((pair for pair in _MARKS if head.startswith(pair[0])), (b"", "utf-8"))
    with atomic_file(file) as stream:
        stream.write(mark)
        for line in (_jsonl_lines if form == ".jsonl" else csv_rows)(original, original.name, section, Ledger()):
            position = _place(line.row.reference, folder) if line.row else ""
            caption = cleaned.changes.get(position) if position else None
            if caption == "":
                continue
            stream.write((line.corrected(caption) if caption else line.text).encode(encoding, "surrogateescape"))
            paths += [position] if position else []
    return paths


def _place(path: object, folder: str) -> str:
    return posixpath.normpath(posixpath.join(folder, path)) if isinstance(path, str) and path.strip() else ""


def csv_rows(path: Path, source: str, section: DataSection, ledger: Ledger) -> Iterator[Line]:
    """Yield the header and the rows of a CSV file; a caption in the last column may have unquoted separators."""
    with open_text(path) as stream, long_fields():
        begin, first = 1, next(stream, "")
        while first and not first.strip("\r\n"):
            yield Line(first)
            begin, first = begin + 1, next(stream, "")
        header = first.rstrip("\r\n")
        by_tab = "\t" if "\t" in header else ","
        separator, names = header_columns(header, section) or ("", split_line(header, by_tab))
        columns = records.find_columns(names, section, subject=f"{path}")
        require(separator, f"{path}", f"the header {shorten(header)}", "an image and a caption column")
        image, last = names.index(columns.image), len(names) - 1
        caption_place = names.index(columns.captions)
        yield Line(first)

        def is_row(line: str) -> bool:
            cells = split_line(line, separator)
            return len(cells) > last and cells[image].strip().lower().endswith(IMAGE_ENDINGS)

        for number, text, cells in csv_lines(stream, separator, is_row, first=begin + 1):
            if not text.strip("\r\n"):
                yield Line(text)
                continue
            key, reason = f"line {number}", ""
            ledger.read += 1
            if cells is None:
                reason = OPEN_QUOTE
            elif len(cells) <= last:
                reason = FEW_CELLS
            elif columns.captions == names[-1]:
                cells[last:] = [separator.join(cells[last:])]
            elif any(cells[last + 1 :]):
                reason = MANY_CELLS
            if cells is None or reason:
                ledger.leave_out(source, key, reason)
                yield Line(text)
                continue

            def corrected(caption: str, cells: list[str] = cells, text: str = text) -> str:
                new = io.StringIO()
                writer = csv.writer(new, delimiter=separator, lineterminator=_line_end(text))
                writer.writerow([*cells[:caption_place], caption, *cells[caption_place + 1 :]])
                return new.getvalue()

            row = dict(zip(names, cells, strict=False))
            values = {name: cell for name, cell in row.items() if cell not in _NAN}
            caption = row[columns.captions]
            captions = [float("nan") if caption in _NAN else caption]
            record = row_record(source, row[columns.image], Part(key, captions), **records.about(values, section))
            yield Line(text, record, corrected)


def _json_columns(path: Path, section: DataSection) -> Columns | None:
    """Return the columns of the first object with an image and captions, else of the first; None without objects."""
    with open_text(path) as stream:
        rows = (row for line in stream if isinstance(row := parse_json(line), dict))
        first = next(rows, None)
        row = next((row for row in chain([first or {}], rows) if all(records.recognized(row, section))), first)
    return None if row is None else records.find_columns(row, section, subject=f"{path}")


def _jsonl_lines(path: Path, source: str, section: DataSection, ledger: Ledger) -> Iterator[Line]:
    columns = _json_columns(path, section)
    with open_text(path) as stream:
        for number, line in enumerate(stream, 1):
            if not line.strip("\r\n"):
                yield Line(line)
                continue
            ledger.read += 1
            row = parse_json(line)
            if columns is None or not isinstance(row, dict):
                ledger.leave_out(source, f"line {number}", BROKEN_LINE)
                yield Line(line)
                continue
            name = columns.captions

            def corrected(caption: str, row: dict[str, object] = row, line: str = line, name: str = name) -> str:
                return json.dumps({**row, name: records.replaced(row.get(name), caption)}) + _line_end(line)

            part = Part(f"line {number}", records.listed_captions(row.get(columns.captions)))
            yield Line(line, row_record(source, row.get(columns.image), part, **records.about(row, section)), corrected)


@contextlib.contextmanager
def long_fields() -> Generator[None]:
    """Allow CSV fields of any length; captions that are too long are reported later."""
    before = csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    try:
        yield
    finally:
        csv.field_size_limit(before)
