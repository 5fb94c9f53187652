"""Detection of a data set's format by its content."""

from collections.abc import Sequence
from typing import NamedTuple

from clipmem.base.errors import InputError, near_names, require
from clipmem.base.sections import DataSection
from clipmem.data.sources.base import SOURCES
from clipmem.data.sources.path_probe import IMAGE_ENDINGS, PACKED, PathProbe
from clipmem.data.sources.records import CAPTIONS, IMAGES, named_columns, no_such_column

_WITH_COLUMNS = (".jsonl", ".csv", ".tsv", ".parquet")
_TABLES = (*_WITH_COLUMNS, ".json", ".txt", ".token")
_MOST_FILES = 40


class Detection(NamedTuple):
    """Source, path to open (of the table if a folder has one), and reason."""

    format: str
    path: str
    reason: str


def detect(path: str, section: DataSection | None = None) -> Detection:
    """Detect the format of the data at a path."""
    probe = PathProbe(path, section)
    if detection := _recognized(probe):
        return detection
    tables = _tables(probe)
    inside = [detection for table in tables if (detection := _recognized(table))]
    got = f"{path!r}, a folder with {len(inside)} data sets: {', '.join(match.path for match in inside[:4])}"
    require(len(inside) < 2, "[data] path", got, "one data set", "Set data.path to one of these files.")
    if inside:
        return inside[0]
    for key, name in named_columns(probe.section).items():
        if probe.names and name not in probe.names:
            raise no_such_column(key, name, probe.names, source=path)
    tables = [table for table in tables or [probe] if table.is_file and table.path.suffix.lower() in _WITH_COLUMNS][:2]
    got = "; ".join(f"{candidate.text!r}, {candidate.describe()}" for candidate in dict.fromkeys([probe, *tables]))
    raise InputError("[data] path", got=got, expected=_expected(probe, tables), hint=_hint(probe, tables))


def _recognized(probe: PathProbe) -> Detection | None:
    for name in sorted(SOURCES, key=lambda name: SOURCES[name].rank):
        reason = SOURCES[name].recognize(probe)
        if reason:
            return Detection(name, probe.text, reason)
    return None


def _tables(probe: PathProbe) -> list[PathProbe]:
    """Return the files in a folder that may have captions."""
    names = [name for name in probe.with_suffix(*_TABLES) if name.count("/") < 2]
    return [PathProbe(str(probe.path / name), probe.section) for name in names[:_MOST_FILES]]


def _expected(probe: PathProbe, tables: Sequence[PathProbe]) -> str:
    if tables or probe.columns:
        return "an image column (such as image or filepath) and a caption column (such as caption or title)"
    if probe.is_dir and probe.with_suffix(*IMAGE_ENDINGS):
        return "captions: metadata.csv (file_name, caption), or a .txt or .json file next to each image"
    return (
        "an image folder, CSV, JSON lines, COCO or Karpathy JSON, Flickr's text, tars, Parquet, or a folder saved by "
        "datasets"
    )


def _hint(probe: PathProbe, tables: Sequence[PathProbe]) -> str:
    if not probe.is_file and not probe.is_dir:
        return "Check the path; for a data set of the Hugging Face hub, use hf-hub:OWNER/NAME."
    if probe.head.startswith(PACKED) or probe.with_suffix(".gz", ".bz2", ".xz", ".zst"):
        return "Decompress it first, for example with gunzip."
    usual = (*IMAGES, *CAPTIONS)
    names = [name for table in tables for name in table.names if name.lower() not in usual]
    near = [f"{match!r} for {name!r}" for name in names for match in near_names(name, usual)[:1]]
    hint = "Set data.image_column and data.caption_column, or data.source; see docs/data.md for all formats."
    return f"Did you mean {' and '.join(near[:2])}? {hint}" if near else hint
