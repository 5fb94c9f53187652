"""Parquet with images, as written by Hugging Face `datasets` and img2dataset, or with image paths."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from clipmem.base.sections import DataSection
from clipmem.data.sources.base import SOURCES, require_data, require_split
from clipmem.data.sources.path_probe import PathProbe
from clipmem.data.sources.records import KEYS, Record, recognized
from clipmem.data.sources.rows import ParquetRows, RowSource, is_image_type


@SOURCES.register("parquet")
class ParquetSource(RowSource):
    """A Parquet file, or a folder of them in the order of their names; one row per pair."""

    summary = "Parquet with images or image paths, by Hugging Face or img2dataset."
    uses = KEYS | {"image_root", "split"}
    rank = 40

    def __init__(self, section: DataSection) -> None:
        path = Path(section.path)
        files = _files(path) if path.is_dir() else [path]
        has_files = files and all(file.is_file() for file in files)
        require_data(has_files, section, "a .parquet file, or a folder of them")
        if section.split:
            files = _of_split(files, section.split)
        super().__init__(section, [ParquetRows(file) for file in files], path if path.is_dir() else path.parent)

    def records(self) -> Iterator[Record]:
        """Yield the records of the files, and count the other files of the folder."""
        yield from super().records()
        if Path(self.section.path).is_dir():
            used = {file.path.relative_to(self._base).as_posix() for file in self._files}
            probe = PathProbe(self.section.path)
            probe.count_others(self.ledger, probe.all_files(), used)

    @classmethod
    def recognize(cls, probe: PathProbe) -> str:
        if probe.is_dir:
            named = probe.with_suffix(".parquet")
            columns = _image_columns(probe.path / named[0], probe.section) if named else ()
            form = f"a folder with {len(named):,} Parquet files"
        else:
            columns = _image_columns(probe.path, probe.section) if probe.head.startswith(b"PAR1") else ()
            form = "Parquet"
        return f"{form} with {columns[0]!r} and {columns[1]!r}" if columns else ""


def _files(folder: Path) -> list[Path]:
    names = [name for name in PathProbe(str(folder)).all_files() if name.endswith(".parquet")]
    return sorted(folder / name for name in [name for name in names if "/" not in name] or names)


def _of_split(files: Sequence[Path], split: str) -> list[Path]:
    """Return the files of a split: named `train-00000-of-00004.parquet`, or in a folder of that name."""
    names = [{file.name.split("-")[0].removesuffix(".parquet"), file.parent.name} for file in files]
    require_split(split, set[str]().union(*names))
    return [file for file, splits in zip(files, names, strict=True) if split in splits]


def _image_columns(path: Path, section: DataSection) -> tuple[str, ...]:
    try:
        schema = pq.read_schema(path)
    except (pa.ArrowException, OSError):
        return ()
    image, captions = recognized(schema.names, section)
    # the type of a column that the recipe names is checked when the rows are read
    fits = image == section.image_column or (bool(image) and is_image_type(schema.field(image).type))
    return (image, captions) if image and captions and fits else ()
