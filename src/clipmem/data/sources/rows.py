"""Sources whose pictures stand in rows of a table: as bytes, as a struct of bytes and path, or as the path of a file.

No more than a batch of rows is in memory. `pairs` reads the rows once; `read` goes forward from where it stands, and
reads a part again only when it is asked for something behind it, so that `storage_order` costs one pass in all. Rows
are one pair each, unless they name the same path with the same picture: then their captions belong to one pair.
"""

# pyarrow has no types
# pyright: reportUnknownParameterType=false

import contextlib
import json
import posixpath
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from itertools import accumulate
from pathlib import Path

import polars as pl
import pyarrow as pa

from clipmem.base.errors import InputError
from clipmem.base.recipes import DataSection
from clipmem.data.objects import object_lists
from clipmem.data.sources.base import RecordSource
from clipmem.data.sources.columns import Columns, find_columns
from clipmem.data.sources.files import find_root, named_root
from clipmem.data.sources.records import OTHER_VALUES, Part, Record, examine, listed_captions, loses_values, read_file
from clipmem.data.sources.row_files import RowFile, value_of, values_of
from clipmem.store.hashing import PictureHash

BROKEN = "not readable from here on"
_STATUS = "status"  # img2dataset's: why a row has no picture


class RowSource(RecordSource):
    """A table in one or more files of one form."""

    def __init__(self, section: DataSection, files: Sequence[RowFile], base: Path) -> None:
        super().__init__(section)
        self._files, self._base = files, base
        self._begins = [0, *accumulate(file.rows for file in files)]
        self._columns = find_columns(files[0].schema.names, section, what=f"{files[0].path}")
        for file in files[1:]:
            found = find_columns(file.schema.names, section, what=f"{file.path}")
            if found != self._columns:
                raise InputError(
                    f"{file.path}",
                    got=f"the columns {found.used}",
                    expected=f"those of the first file, {self._columns.used}",
                    hint="Set data.image_column and data.caption_column to names that all files have.",
                )  # fmt: skip
        for file in files:
            kind = _check_image(file.schema.field(self._columns.image))
            if section.image_root and _is_bytes(kind):
                raise InputError(
                    "[data] image_root", got=f"{section.image_root!r}, and {file.path} holds the pictures themselves",
                    expected="a column with paths", hint="Remove data.image_root, or set data.image_column.",
                )  # fmt: skip
        named_root(section)
        self._cursor: _Cursor | None = None
        self._latest: tuple[str, PictureHash | str] = ("", "")

    @property
    def columns(self) -> Columns:
        """The columns of all files."""
        return self._columns

    def records(self) -> Iterator[Record]:
        """Yield one record a row, then those that several rows share."""
        shared, self._latest = self._shared_paths(), ("", "")
        together: dict[tuple[str, bytes | str], Record] = {}
        for path, record in self._rows():
            if path not in shared:
                yield record
                continue
            state = record.picture if isinstance(record.picture, str) else record.picture.digest()
            first = together.setdefault((path, state), record)
            if first is not record:
                if loses_values(
                    (first.group, first.label, first.objects), (record.group, record.label, record.objects)
                ):
                    self.ledger.note(record.source, record.key, OTHER_VALUES)
                first.parts = [*first.parts, *record.parts]
        yield from together.values()

    def _shared_paths(self) -> set[str]:
        """Return the paths that more than one row names, without reading a picture."""
        name = self._columns.image
        counts: Counter[str] = Counter()
        for file in self._files:
            kind = file.schema.field(name).type
            if pa.types.is_struct(kind) and kind.get_field_index("path") >= 0:
                column = f"{name}.path"
            elif _is_text(kind):
                column = name
            else:
                continue
            try:
                for _, batch in file.batches([column]):
                    values = batch.column(0)
                    paths = values.field("path") if pa.types.is_struct(values.type) else values
                    counts.update(path for path in values_of(paths) if isinstance(path, str) and path)
            except (pa.ArrowException, OSError):  # told where the rows are read
                continue
        return {path for path, times in counts.items() if times > 1}

    def _rows(self) -> Iterator[tuple[str, Record]]:
        for begin, file in zip(self._begins, self._files, strict=False):
            names = label_names(file.schema, self._columns.label)
            columns = self._columns.used + [_STATUS] * (_STATUS in file.schema.names)
            done = 0
            self.ledger.read += file.rows
            with contextlib.suppress(pa.ArrowException, OSError):
                for row, batch in file.batches(list(dict.fromkeys(columns))):
                    for found in self._batch(file, batch, row, begin, names):
                        done += 1
                        yield found
            if done < file.rows:
                self.ledger.leave_out(self._name(file), f"{done}", BROKEN, records=file.rows - done)

    def _batch(
        self, file: RowFile, batch: pa.RecordBatch, first: int, begin: int, names: Sequence[str]
    ) -> Iterator[tuple[str, Record]]:
        columns = self._columns
        images, captions = batch.column(columns.image), values_of(batch.column(columns.captions))
        groups, labels = _texts(batch, columns.group), _texts(batch, columns.label, names)
        objects = _objects(batch, columns)
        status = batch.column(_STATUS).to_pylist() if _STATUS in batch.schema.names else [None] * batch.num_rows
        for k in range(batch.num_rows):
            path, picture = self._examined(value_of(images[k]), status[k])
            own = listed_captions(captions[k])
            key = f"{first + k}"
            reference, parts = f"{begin + first + k}", [Part(key, own)]
            yield (
                path,
                Record(self._name(file), key, reference, picture, parts, groups[k], labels[k], objects[k]),
            )

    def _examined(self, value: object, status: object) -> tuple[str, PictureHash | str]:
        """Return the path of a row's picture, and its hash or the reason why there is none."""
        alone = value.get("path") if isinstance(value, dict) and value.get("bytes") is None else value
        if isinstance(alone, str) and alone == self._latest[0]:  # a row a caption: the file is read once
            return self._latest
        data, path = self._picture(value)
        picture = data if isinstance(data, str) else examine(data)
        if data is None and isinstance(status, str):
            picture = f"img2dataset: {status}"
        if isinstance(alone, str):
            self._latest = path, picture
        return path, picture

    def _name(self, file: RowFile) -> str:
        return file.path.relative_to(self._base).as_posix()

    def _picture(self, value: object) -> tuple[bytes | str | None, str]:
        """Return a picture's bytes, or the reason why there are none, and its path."""
        if isinstance(value, dict):
            data, path = value.get("bytes"), value.get("path")
        else:
            data, path = (value, None) if isinstance(value, bytes) else (None, value)
        path = path if isinstance(path, str) else ""
        if data is None and path:
            return read_file(Path(posixpath.join(self._root, path))), path
        return data, path

    @cached_property
    def _root(self) -> str:
        """The folder that paths of pictures start from."""
        named = named_root(self.section)
        if named:
            return str(named)
        for file in self._files:
            for _, batch in file.batches([self._columns.image]):
                values = [value for value in values_of(batch.column(0)) if value]
                paths = [value["path"] if isinstance(value, dict) else value for value in values]
                return str(find_root([path for path in paths if isinstance(path, str)], self._base))
        return str(self._base)

    def read(self, references: Sequence[str]) -> list[bytes]:
        """Return the encoded pictures of these rows."""
        found: dict[int, bytes] = {}
        for position in self.storage_order(references):
            data, _ = self._picture(self._value(int(references[position])))
            if not isinstance(data, bytes):
                raise InputError(
                    f"picture of row {references[position]}",
                    got=data or "none",
                    expected="the data that were there when the pairs were listed",
                    hint="Put them back, or start a study in another run folder.",
                )
            found[position] = data
        return [found[position] for position in range(len(references))]

    def _value(self, row: int) -> object:
        number = next((k for k, end in enumerate(self._begins[1:]) if row < end), -1)
        if number < 0:
            raise InputError(
                f"picture of row {row}", got=f"{self._begins[-1]:,} rows", expected="the data of the study",
                hint="Put back the files that are gone.",
            )  # fmt: skip
        if self._cursor is None or self._cursor.file is not self._files[number]:
            self._cursor = _Cursor(self._files[number], self._columns.image)
        return self._cursor.value(row - self._begins[number])

    def storage_order(self, references: Sequence[str]) -> list[int]:
        """Return the order of the rows."""
        return sorted(range(len(references)), key=lambda k: int(references[k]))


class _Cursor:
    """Reads single values of a column; forward ones go on from where it stands."""

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
    """Return the names of a column of class numbers, where `datasets` has written them into the schema.

    Example:
        >>> features = {"info": {"features": {"kind": {"names": ["cat", "dog"], "_type": "ClassLabel"}}}}
        >>> told = pa.schema([("kind", pa.int64())], metadata={"huggingface": json.dumps(features)})
        >>> label_names(told, "kind")
        ['cat', 'dog']
    """
    try:
        described: object = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
    except (ValueError, RecursionError):
        return []
    for key in ("info", "features", column, "names"):
        described = described.get(key) if isinstance(described, Mapping) else None
    return [str(name) for name in described] if isinstance(described, list) else []


def _texts(batch: pa.RecordBatch, column: str, names: Sequence[str] = ()) -> list[str]:
    if not column:
        return [""] * batch.num_rows
    values = values_of(batch.column(column))
    return [
        names[value] if isinstance(value, int) and 0 <= value < len(names) else "" if value is None else str(value)
        for value in values
    ]


def _objects(batch: pa.RecordBatch, columns: Columns) -> list[list[str]]:
    if not columns.objects:
        return [[] for _ in range(batch.num_rows)]
    return object_lists(pl.Series(columns.objects, batch.column(columns.objects)))


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def _is_bytes(kind: pa.DataType) -> bool:
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind)


def is_picture_type(kind: pa.DataType) -> bool:
    """Tell whether a column of this type can hold pictures."""
    if pa.types.is_struct(kind):
        return any(kind.field(k).name in {"bytes", "path"} for k in range(kind.num_fields))
    return _is_text(kind) or _is_bytes(kind)


def _check_image(field: pa.Field) -> pa.DataType:
    if not is_picture_type(field.type):
        raise InputError(
            f"column {field.name!r}",
            got=f"{field.type}",
            expected="bytes, a struct with a field 'bytes' or 'path', or a path as text",
            hint="Set data.image_column.",
        )
    return field.type
