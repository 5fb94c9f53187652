"""Parquet with pictures in it, as Hugging Face `datasets` and img2dataset write it, or with the paths of pictures."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from clipmem.base.errors import InputError
from clipmem.base.recipes import DataSection
from clipmem.base.suggest import did_you_mean
from clipmem.data.sources.base import SOURCES
from clipmem.data.sources.columns import KEYS, recognised
from clipmem.data.sources.look import Look
from clipmem.data.sources.records import Record
from clipmem.data.sources.row_files import ParquetRows
from clipmem.data.sources.rows import RowSource, is_picture_type


@SOURCES.register("parquet")
class ParquetSource(RowSource):
    """One Parquet file, or a folder of them (read in the order of their names); one row a pair."""

    uses = KEYS | {"image_root", "split"}

    def __init__(self, section: DataSection) -> None:
        path = Path(section.path)
        files = _files(path) if path.is_dir() else [path]
        if not section.path or not files or not all(file.is_file() for file in files):
            raise InputError(
                "[data] path",
                got=f"{section.path!r}, where there is no Parquet file",
                expected="a .parquet file, or a folder that holds some",
                hint="Set data.path.",
            )
        if section.split:
            files = _of_split(files, section.split)
        super().__init__(section, [ParquetRows(file) for file in files], path if path.is_dir() else path.parent)

    def records(self) -> Iterator[Record]:
        """Yield the records of the files, and count the other files of the folder."""
        yield from super().records()
        if Path(self.section.path).is_dir():
            used = {file.path.relative_to(self._base).as_posix() for file in self._files}
            look = Look(self.section.path)
            look.count_others(self.ledger, look.all_files(), used)

    @classmethod
    def recognise(cls, look: Look) -> str:
        """A Parquet file with a picture and a caption column, or a folder with some."""
        if look.is_dir:
            named = look.with_suffix(".parquet")
            columns = picture_columns(look.path / named[0], look.section) if named else ()
            return f"a folder with {len(named):,} Parquet files that have {_listed(columns)}" if columns else ""
        columns = picture_columns(look.path, look.section) if look.head.startswith(b"PAR1") else ()
        return f"Parquet with {_listed(columns)}" if columns else ""


def _files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.parquet")) or sorted(folder.rglob("*.parquet"))


def _of_split(files: Sequence[Path], split: str) -> list[Path]:
    """Keep the files of a split: Hugging Face names them `train-00000-of-00004.parquet`, or puts them in a folder."""
    names = [{file.name.split("-")[0].removesuffix(".parquet"), file.parent.name} for file in files]
    found = [file for file, own in zip(files, names, strict=True) if split in own]
    if not found:
        raise InputError(
            "[data] split",
            got=f"{split!r}, which no Parquet file is named by",
            expected="files as train-00000-of-00004.parquet, or a folder of that name",
            hint=did_you_mean(split, set().union(*names), kind="split"),
        )
    return found


def picture_columns(path: Path, section: DataSection) -> tuple[str, ...]:
    """Return the picture and the caption column of a Parquet file; nothing where one is missing."""
    try:
        schema = pq.read_schema(path)
    except (pa.ArrowException, OSError):
        return ()
    image, captions = recognised(schema.names, section)
    # a column that the recipe names is refused with its type where the rows are read
    fits = image == section.image_column or (bool(image) and is_picture_type(schema.field(image).type))
    return (image, captions) if image and captions and fits else ()


def _listed(columns: Sequence[str]) -> str:
    return " and ".join(repr(column) for column in columns)
