"""Sources with images in rows of a table: as bytes, as a struct of bytes and path, or as a path.

Files are read in small batches from any row: Parquet, and memory-mapped Arrow files.
"""

# pyarrow has no types
# pyright: reportUnknownParameterType=false
import contextlib
import os
import posixpath
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import IO, Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from clipmem.base.errors import require
from clipmem.base.hashing import ImageHash
from clipmem.base.paths import atomic_file, parsing
from clipmem.base.remote import AnyPath, arrow_input, data_path
from clipmem.base.sections import DataSection
from clipmem.data.sources import records
from clipmem.data.sources.base import Cleaned, Shards, Source, image_gone
from clipmem.data.sources.files import check_root, find_root
from clipmem.data.sources.path_probe import parse_json
from clipmem.data.sources.records import Columns, Part, Record
from clipmem.data.user_tables import object_lists

BROKEN = "unreadable from this row on"
_STATUS = "status"  # img2dataset's reason for a missing image
_BATCH_BYTES = 8 * 2**20
_BATCH_ROWS = 1024
_BUFFER = 1 << 20


class ParquetRows:
    """A Parquet file, read page by page, so that a huge row group needs little memory."""

    def __init__(self, path: AnyPath) -> None:
        self.path = path
        with parsing(f"{path}", "not readable as Parquet", (pa.ArrowException, OSError)):
            # without these options, the column of a row group is read at once
            self._file = pq.ParquetFile(arrow_input(path), buffer_size=_BUFFER, pre_buffer=False)
        self._groups = [self._file.metadata.row_group(k) for k in range(self._file.num_row_groups)]
        self._ends = list(accumulate(group.num_rows for group in self._groups))
        self.schema, self.rows = self._file.schema_arrow, self._file.metadata.num_rows

    def batches(self, columns: Sequence[str], start: int = 0) -> Iterator[tuple[int, pa.RecordBatch]]:
        """Yield (first row, batch) of about 8 MiB or 1,024 rows; the first batch contains row `start`."""
        for number in range(bisect_right(self._ends, start), len(self._groups)):
            group = self._groups[number]
            row = self._ends[number] - group.num_rows
            size = max(1, min(_BATCH_ROWS, _BATCH_BYTES * group.num_rows // max(1, group.total_byte_size)))
            for batch in self._file.iter_batches(size, row_groups=[number], columns=list(columns), use_threads=False):
                if row + batch.num_rows > start:
                    yield row, batch
                row += batch.num_rows

    def block(self, row: int) -> int:
        """Return the first row of the row group of `row`, where reading must start."""
        number = bisect_right(self._ends, row)
        return self._ends[number] - self._groups[number].num_rows

    def writer(self, stream: IO[bytes]) -> Any:
        """Return a writer of batches with the same columns and compression."""
        used = self._groups[0].column(0).compression if self._groups else "UNCOMPRESSED"
        return pq.ParquetWriter(stream, self.schema, compression="none" if used == "UNCOMPRESSED" else used)


class ArrowRows:
    """A memory-mapped file of Arrow record batches, as saved by Hugging Face `datasets`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with parsing(f"{path}", "not readable as Arrow", (pa.ArrowException, OSError)):
            source = pa.memory_map(str(path))
            self._is_file = is_file = source.read(6) == b"ARROW1"
            source.seek(0)
            table = (pa.ipc.open_file(source) if is_file else pa.ipc.open_stream(source)).read_all()
        self._table: pa.Table = table
        self.schema, self.rows = table.schema, table.num_rows

    def batches(self, columns: Sequence[str], start: int = 0) -> Iterator[tuple[int, pa.RecordBatch]]:
        """Yield batches of at most 1,024 rows."""
        names = list(dict.fromkeys(column.split(".")[0] for column in columns))
        row = start
        for batch in self._table.select(names).slice(start).to_batches(max_chunksize=_BATCH_ROWS):
            yield row, batch
            row += batch.num_rows

    def block(self, row: int) -> int:
        """Return the row: access is random."""
        return row

    def writer(self, stream: IO[bytes]) -> Any:
        """Return a writer of batches in the same form."""
        return (pa.ipc.new_file if self._is_file else pa.ipc.new_stream)(stream, self.schema)


RowFile = ParquetRows | ArrowRows


def edited(batch: pa.RecordBatch, captions: str, changes: Sequence[str | None]) -> pa.RecordBatch:
    """Return the rows of a batch whose change is not "", with the caption of those that have another change."""
    number = batch.schema.get_field_index(captions)
    column = batch.column(number)
    if any(changes):
        # a caption that is repeated counts once
        times = column.type.list_size if pa.types.is_fixed_size_list(column.type) else 1
        parts = [column.slice(k, 1) for k in range(len(column))]
        for k, change in enumerate(changes):
            if change:
                parts[k] = pa.array([records.replaced(value_of(column[k]), change, times)], column.type)
        batch = batch.set_column(number, batch.schema.field(number), pa.concat_arrays(parts))
    # not `filter`, which does not take all types, such as views
    rows = [batch.slice(k, 1) for k, change in enumerate(changes) if change != ""]
    return pa.concat_batches(rows or [batch.slice(0, 0)])


def values_of(column: pa.Array) -> list[object]:
    """Return the values of a column; invalid bytes become lone surrogates, which captions must not have."""
    try:
        return column.to_pylist()
    except UnicodeDecodeError:
        return [value_of(scalar) for scalar in column]


def value_of(scalar: pa.Scalar) -> object:
    """Return one value of a column (see `values_of`)."""
    try:
        return scalar.as_py()
    except UnicodeDecodeError:
        if isinstance(scalar, pa.StructScalar):
            return {name: value_of(field) for name, field in scalar.items()}
        if isinstance(scalar, pa.ListScalar):
            return [value_of(element) for element in scalar.values]
        return scalar.as_buffer().to_pybytes().decode("utf-8", "surrogateescape")


class RowSource(Source):
    """A table in one or more files with the same columns; rows of a shard share images only with each other."""

    def __init__(
        self, section: DataSection, paths: Sequence[AnyPath], rows: type[Any], base: AnyPath, shard: str | None = None
    ) -> None:
        super().__init__(section, shard)
        self._paths, self._base = [base / shard] if shard else paths, base
        self._files: list[RowFile] = [rows(path) for path in self._paths[: 1 if shard == "" else None]]
        self._begins = [0, *accumulate(file.rows for file in self._files)]
        self._columns = records.find_columns(self._files[0].schema.names, section, subject=f"{self._paths[0]}")
        for file in self._files:
            columns = records.find_columns(file.schema.names, section, subject=f"{file.path}")
            got, expected = f"the columns {columns.used}", f"those of the first file, {self._columns.used}"
            hint = "Set data.image_column and data.caption_column to columns of all files."
            require(columns == self._columns, f"{file.path}", got, expected, hint)
            field = file.schema.field(self._columns.image)
            kind, expected = field.type, "bytes, a struct with a field 'bytes' or 'path', or a path"
            require(is_image_type(kind), f"column {field.name!r}", f"{kind}", expected, "Set data.image_column.")
            has_paths = not section.image_root or not _is_bytes(kind)
            got = f"{section.image_root!r}, but {file.path} contains the images"
            hint = "Remove data.image_root, or set data.image_column."
            require(has_paths, "[data] image_root", got, "a column with paths", hint)
        check_root(section)
        self._cursor: _Cursor | None = None
        self._latest: tuple[str, ImageHash | str] = ("", "")

    @property
    def columns(self) -> Columns:
        return self._columns

    def shards(self) -> Shards:
        columns = {"image_column": self._columns.image, "caption_column": self._columns.captions}
        return self.section.model_copy(update=columns), {self._name(path): path for path in self._paths}

    def records(self) -> Iterator[Record]:
        """Yield one record per row, then those of images shared by several rows."""
        name, counts = self._columns.image, Counter[str]()  # of paths, without reading images
        for file in self._files:
            kind = file.schema.field(name).type
            in_struct = pa.types.is_struct(kind) and kind.get_field_index("path") >= 0
            if not in_struct and not _is_text(kind):
                continue
            with contextlib.suppress(pa.ArrowException, OSError):  # reported when the rows are read
                for _, batch in file.batches([f"{name}.path" if in_struct else name]):
                    values = batch.column(0)
                    paths = values_of(values.field("path") if pa.types.is_struct(values.type) else values)
                    counts.update(path for path in paths if isinstance(path, str) and path)
        shared, self._latest = {path for path, times in counts.items() if times > 1}, ("", "")
        joined: dict[tuple[str, bytes | str], Record] = {}
        for path, record in self._rows():
            if path not in shared:
                yield record
                continue
            state = record.image if isinstance(record.image, str) else record.image.digest()
            first = joined.setdefault((path, state), record)
            if first is not record:
                first.join(record, self.ledger)
        yield from joined.values()

    def _rows(self) -> Iterator[tuple[str, Record]]:
        for begin, file in zip(self._begins, self._files, strict=False):
            names = label_names(file.schema, self._columns.label)
            columns = self._columns.used + [_STATUS] * (_STATUS in file.schema.names)
            done = 0
            self.ledger.read += file.rows
            with contextlib.suppress(pa.ArrowException, OSError):
                for row, batch in file.batches(list(dict.fromkeys(columns))):
                    for entry in self._batch(file, batch, row, begin, names):
                        done += 1
                        yield entry
            if done < file.rows:
                self.ledger.leave_out(self._name(file.path), f"{done}", BROKEN, records=file.rows - done)

    def _batch(
        self, file: RowFile, batch: pa.RecordBatch, first: int, begin: int, names: Sequence[str]
    ) -> Iterator[tuple[str, Record]]:
        columns = self._columns
        read = [name for name in (*columns[1:], _STATUS) if name in batch.schema.names]
        images, values = batch.column(columns.image), {name: values_of(batch.column(name)) for name in read}
        objects = object_lists(pl.Series(columns.objects, batch.column(columns.objects))) if columns.objects else []
        for k in range(batch.num_rows):
            row = {name: column[k] for name, column in values.items()}
            data, path = _bytes_and_path(value_of(images[k]))
            image = self._latest[1]
            if data is not None or not path or path != self._latest[0]:  # several rows per image: read the file once
                content, status = self._content(data, path), row.get(_STATUS)
                image = content if isinstance(content, str) else records.examine(content)
                image = f"img2dataset: {status}" if content is None and isinstance(status, str) else image
                self._latest = (path, image) if data is None else self._latest
            key, position = f"{first + k}", f"{begin + first + k}"
            parts = [Part(key, records.listed_captions(row[columns.captions]), place=position)]
            fields, label = records.about(row, self.section), row.get(columns.label)
            fields["objects"] = objects[k] if objects else []
            if names and isinstance(label, int) and -1 <= label < len(names):  # datasets writes -1 for no class
                fields["label"] = [*names, ""][label]
            yield path, Record(self._name(file.path), key, position, image, parts, **fields)

    def _name(self, path: AnyPath) -> str:
        return path.relative_to(self._base).as_posix()

    def _content(self, data: bytes | None, path: str) -> bytes | str | None:
        """Return the bytes of an image, or why its file cannot be read; None if a row has neither."""
        if data is not None or not path:
            return data
        file = data_path(posixpath.join(self._root, path))
        if isinstance(file, Path):
            self.ledger.folders.add(os.path.normpath(file.absolute().parent))
        return records.read_file(file)

    @cached_property
    def _root(self) -> str:
        images = (batch.column(0) for file in self._files for _, batch in file.batches([self._columns.image]))
        cells = map(_bytes_and_path, values_of(next(images, pa.nulls(0))))
        return str(find_root(self.section, [path for data, path in cells if data is None and path], self._base))

    def read(self, references: Sequence[str]) -> list[bytes]:
        contents: dict[int, bytes] = {}
        for position in self.storage_order(references):
            data = self._content(*_bytes_and_path(self._value(int(references[position]))))
            if not isinstance(data, bytes):
                raise image_gone(f"row {references[position]}", data or "none")
            contents[position] = data
        return [contents[position] for position in range(len(references))]

    def _value(self, row: int) -> object:
        number = next((k for k, end in enumerate(self._begins[1:]) if row < end), -1)
        if number < 0:
            raise image_gone(f"row {row}", f"{self._begins[-1]:,} rows")
        if self._cursor is None or self._cursor.file is not self._files[number]:
            self._cursor = _Cursor(self._files[number], self._columns.image)
        return self._cursor.value(row - self._begins[number])

    def write_kept(self, cleaned: Cleaned) -> str | None:
        """Write the files with the rows that stay, and copy the images that they name by relative paths."""
        for begin, file in zip(self._begins, self._files, strict=False):
            changes = [cleaned.changes.get(f"{row}") for row in range(begin, begin + file.rows)]
            with_paths = not _is_bytes(file.schema.field(self._columns.image).type)
            if not with_paths and all(change is None for change in changes):
                cleaned.copy(file.path, self._name(file.path))
                continue
            got, errors, hint = "rows that cannot be read", (pa.ArrowException,), "Repair the file, or remove it."
            readable = parsing(f"{file.path}", got, errors, expected="a readable file", hint=hint)
            with readable, atomic_file(cleaned.folder / self._name(file.path)) as stream, file.writer(stream) as writer:
                for first, batch in file.batches(file.schema.names):
                    rows = edited(batch, self._columns.captions, changes[first : first + batch.num_rows])
                    writer.write_batch(rows)
                    cells = map(value_of, rows.column(self._columns.image)) if with_paths else ()
                    for data, path in map(_bytes_and_path, cells):
                        if data is None:
                            cleaned.copy_image(data_path(self._root), path)
        single = self._files[0].path
        return self._name(single) if str(single) == self.section.path else ""

    def storage_order(self, references: Sequence[str]) -> list[int]:
        return sorted(range(len(references)), key=lambda k: int(references[k]))


class _Cursor:
    def __init__(self, file: RowFile, column: str) -> None:
        self.file, self._column = file, column
        self._batches: Iterator[tuple[int, pa.RecordBatch]] = iter(())
        self._first, self._values = 0, pa.nulls(0)

    def value(self, row: int) -> object:
        end = self._first + len(self._values)
        if not self._first <= row < end:
            if row < self._first or not end or self.file.block(row) > end:
                self._batches = self.file.batches([self._column], row)
            for first, batch in self._batches:
                self._first, self._values = first, batch.column(0)
                if row < first + batch.num_rows:
                    break
        return value_of(self._values[row - self._first])


def label_names(schema: pa.Schema, column: str) -> list[str]:
    """Return the class names of an integer label column from the schema written by `datasets`."""
    described = parse_json((schema.metadata or {}).get(b"huggingface", b"{}"))
    for key in ("info", "features", column, "names"):
        described = described.get(key) if isinstance(described, Mapping) else None
    return [str(name) for name in described] if isinstance(described, list) else []


def _bytes_and_path(value: object) -> tuple[bytes | None, str]:
    """Return the bytes of an image in a row, and its path; None and "" if it has none."""
    data, path = (value.get("bytes"), value.get("path")) if isinstance(value, dict) else (value, value)
    return data if isinstance(data, bytes) else None, path if isinstance(path, str) else ""


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def _is_bytes(kind: pa.DataType) -> bool:
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind)


def is_image_type(kind: pa.DataType) -> bool:
    """Return whether a column of this type can have images."""
    if pa.types.is_struct(kind):
        return any(kind.field(k).name in {"bytes", "path"} for k in range(kind.num_fields))
    return _is_text(kind) or _is_bytes(kind)
