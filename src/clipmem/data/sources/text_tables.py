"""Rows of small tables of captions: CSV with any usual separator, JSON lines, and Parquet without pictures.

A line that cannot be read is listed and the next one read. What pandas reads as missing in open_clip's own loader (an
empty cell, nan) is no caption here either; words such as "None" are captions.
"""

import contextlib
import csv
import json
import sys
from collections.abc import Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from clipmem.base.errors import InputError, shorten
from clipmem.base.recipes import DataSection
from clipmem.data.quarantine import Problem
from clipmem.data.sources.columns import CAPTIONS, IMAGES, Columns, chosen, find_columns, objects_of, text_of
from clipmem.data.sources.files import Row
from clipmem.data.sources.records import listed_captions, problem

SEPARATORS = {",": "commas", "\t": "tabs", ";": "semicolons", "|": "bars"}
SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet")
BROKEN_LINE = "a line that is not JSON"
BROKEN_ROW = "a row that is not CSV"
_NAN = {"nan", "NaN"}

T = TypeVar("T")


def text_encoding(head: bytes) -> str:
    """Return the encoding of a text file: UTF-16 where its first two bytes say so, UTF-8 otherwise."""
    return "utf-16" if head[:2] in {b"\xff\xfe", b"\xfe\xff"} else "utf-8-sig"


@contextlib.contextmanager
def open_text(path: Path) -> Generator[Iterator[str]]:
    """Open a text file by lines; bytes that are not text become lone surrogates, which no caption may have."""
    with path.open("rb") as stream:
        encoding = text_encoding(stream.read(2))
    with path.open(encoding=encoding, errors="surrogateescape", newline="") as stream:
        yield stream


def split_line(line: str, separator: str) -> list[str]:
    """Split one line of a CSV file."""
    return next(csv.reader([line], delimiter=separator), [])


def header_columns(line: str, section: DataSection) -> tuple[str, Columns] | None:
    r"""Return separator and columns of a CSV header; None where no separator gives a picture and a caption.

    Example:
        >>> header_columns("filepath\ttitle", DataSection())
        ('\t', Columns(image='filepath', captions='title', group='', label='', objects=''))
    """
    for separator in SEPARATORS:
        names = [name.strip() for name in split_line(line, separator)]
        image = chosen(names, section.image_column, "image_column", IMAGES)
        captions = chosen(names, section.caption_column, "caption_column", CAPTIONS)
        if image and captions:
            return separator, find_columns(names, section, what="header")
    return None


def table_rows(
    path: Path, source: str, section: DataSection, problems: list[Problem], *, form: str = ""
) -> Iterator[Row]:
    """Yield the rows of a table in a file.

    Args:
        path: The file.
        source: What to call it in problems.
        section: The recipe's `[data]` section.
        problems: Where lines that cannot be read are listed.
        form: ".jsonl", ".parquet", or another for CSV; the ending of the file's name unless given.

    Raises:
        InputError: A column is missing, or the file cannot be read.
    """
    try:
        match form or path.suffix.lower():
            case ".jsonl":
                yield from _jsonl_rows(path, source, section, problems)
            case ".parquet":
                yield from _parquet_rows(path, source, section)
            case _:
                yield from csv_rows(path, source, section, problems)
    except (OSError, UnicodeError, pa.ArrowException) as error:
        raise InputError(f"{path}", got=f"not readable ({shorten(str(error))})", todo="Check the file.") from error


def csv_rows(path: Path, source: str, section: DataSection, problems: list[Problem]) -> Iterator[Row]:
    """Yield the rows of a CSV file; where the last column is the caption, unquoted separators are part of it."""
    with open_text(path) as stream, _long_fields():
        header = next(stream, "").rstrip("\r\n")
        found = header_columns(header, section)
        if found is None:
            names = split_line(header, "\t" if "\t" in header else ",")
            find_columns(names, section, what=f"{path}")  # tells which column is missing
            raise InputError(f"{path}", got=f"the header {shorten(header)}", expected="a picture and a caption column")
        separator, columns = found
        names = [name.strip() for name in split_line(header, separator)]
        caption_last = columns.captions == names[-1]
        reader = csv.reader(stream, delimiter=separator)
        while True:
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error:
                problems.append(problem(source, f"line {reader.line_num + 1}", BROKEN_ROW))
                continue
            if not cells:
                continue
            if len(cells) > len(names) and caption_last:
                cells[len(names) - 1 :] = [separator.join(cells[len(names) - 1 :])]
            row = dict(zip(names, cells, strict=False))
            caption = row.get(columns.captions)
            row_captions = [float("nan") if caption in _NAN else caption]
            yield _row(row, source, f"line {reader.line_num + 1}", columns, row_captions)


def _jsonl_rows(path: Path, source: str, section: DataSection, problems: list[Problem]) -> Iterator[Row]:
    with open_text(path) as stream:
        columns = None
        for number, line in enumerate(stream, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                row = None
            if not isinstance(row, dict):
                problems.append(problem(source, f"line {number}", BROKEN_LINE))
                continue
            columns = columns or find_columns(row, section, what=f"{path}, line {number}")
            yield _row(row, source, f"line {number}", columns, listed_captions(row.get(columns.captions)))


def _parquet_rows(path: Path, source: str, section: DataSection) -> Iterator[Row]:
    with pq.ParquetFile(path) as file:
        columns = find_columns(file.schema_arrow.names, section, what=f"{path}")
        number = 0
        for batch in file.iter_batches(1000, columns=columns.used):
            for row in batch.to_pylist():
                yield _row(row, source, f"row {number}", columns, listed_captions(row[columns.captions]))
                number += 1


def _row(row: Mapping[str, object], source: str, key: str, columns: Columns, captions: Sequence[object]) -> Row:
    return Row(
        source,
        key,
        row.get(columns.image),
        captions,
        text_of(row, columns.group),
        text_of(row, columns.label),
        objects_of(row, columns.objects),
    )


@contextlib.contextmanager
def _long_fields() -> Generator[None]:
    """Let a field of any length through Python's reader; over-long captions are listed, not an error."""
    before = csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    try:
        yield
    finally:
        csv.field_size_limit(before)
