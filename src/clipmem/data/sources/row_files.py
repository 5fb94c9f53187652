"""Files of rows, read in small batches from any row: Parquet, and memory-mapped Arrow files."""

# pyarrow has no types
# pyright: reportUnknownParameterType=false

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from clipmem.base.errors import InputError, shorten
from clipmem.data.sources.cleaned import replaced

_BATCH_BYTES = 8 * 2**20
_BATCH_ROWS = 1024
_BUFFER = 1 << 20


class ParquetRows:
    """A Parquet file, read page by page, so that a huge row group needs little memory."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            # without these options, the column of a row group is read at once
            self._file = pq.ParquetFile(path, buffer_size=_BUFFER, pre_buffer=False)
        except (pa.ArrowException, OSError) as error:
            raise InputError(f"{path}", got=f"not readable as Parquet ({shorten(str(error))})") from error
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
        try:
            source = pa.memory_map(str(path))
            self._is_file = is_file = source.read(6) == b"ARROW1"
            source.seek(0)
            table = (pa.ipc.open_file(source) if is_file else pa.ipc.open_stream(source)).read_all()
        except (pa.ArrowException, OSError) as error:
            raise InputError(f"{path}", got=f"not readable as Arrow ({shorten(str(error))})") from error
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
        parts = [
            pa.array([replaced(value_of(column[k]), change)], column.type) if change else column.slice(k, 1)
            for k, change in enumerate(changes)
        ]
        batch = batch.set_column(number, batch.schema.field(number), pa.concat_arrays(parts))
    return batch.filter(pa.array([change != "" for change in changes]))


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
            return {name: value_of(one) for name, one in scalar.items()}
        if isinstance(scalar, pa.ListScalar):
            return [value_of(one) for one in scalar.values]
        return scalar.as_buffer().to_pybytes().decode("utf-8", "surrogateescape")
