"""Detection of a data set's format by its content."""

from pathlib import PurePosixPath
from typing import NamedTuple

from clipmem.base.errors import InputError
from clipmem.base.require import require
from clipmem.base.sections import DataSection
from clipmem.data.sources.base import SOURCES
from clipmem.data.sources.columns import named_columns, no_such_column
from clipmem.data.sources.path_probe import IMAGE_ENDINGS, PACKED, PathProbe

_TABLES = (".json", ".jsonl", ".csv", ".tsv", ".txt", ".token")
_MOST_FILES = 40


class Detection(NamedTuple):
    """Source, path to open (of the table if a folder has one), and reason."""

    format: str
    path: str
    reason: str


def detect(path: str, section: DataSection | None = None) -> Detection:
    """Detect the format of the data at a path."""
    probe = PathProbe(path, section)
    found = _recognized(probe)
    if found:
        return found
    inside = _inside(probe) if probe.is_dir else []
    got = f"{path!r}, a folder with {len(inside)} data sets: {', '.join(one.path for one in inside[:4])}"
    require(len(inside) < 2, "[data] path", got, "one data set", "Set data.path to one of these files.")
    if inside:
        return inside[0]
    for key, name in named_columns(probe.section).items():
        if probe.names and name not in probe.names:
            raise no_such_column(key, name, probe.names, what=path)
    raise InputError("[data] path", got=f"{path!r}, {probe.describe()}", expected=_expected(probe), hint=_hint(probe))


def _recognized(probe: PathProbe) -> Detection | None:
    for name in sorted(SOURCES, key=lambda name: SOURCES[name].rank):
        reason = SOURCES[name].recognize(probe)
        if reason:
            return Detection(name, probe.text, reason)
    return None


def _inside(probe: PathProbe) -> list[Detection]:
    tables = [name for name in probe.files if name.lower().endswith(_TABLES) and name.count("/") < 2]
    found = [_recognized(PathProbe(str(probe.path / name), probe.section)) for name in tables[:_MOST_FILES]]
    return [one for one in found if one]


def _expected(probe: PathProbe) -> str:
    if probe.is_dir and probe.with_suffix(*IMAGE_ENDINGS):
        return "captions: metadata.csv (file_name, caption), or a .txt or .json file next to each image"
    suffix = PurePosixPath(probe.text).suffix
    if probe.is_file and (probe.head.startswith(b"PAR1") or suffix in {".csv", ".tsv", ".jsonl"}):
        return "an image column (such as image or filepath) and a caption column (such as caption or title)"
    return (
        "an image folder, CSV, JSON lines, COCO or Karpathy JSON, Flickr's text, tars, Parquet, or a folder saved by "
        "datasets"
    )


def _hint(probe: PathProbe) -> str:
    if not probe.is_file and not probe.is_dir:
        return "Check the path; for a data set of the Hugging Face hub, use hf-hub:OWNER/NAME."
    if probe.head.startswith(PACKED) or probe.with_suffix(".gz", ".bz2", ".xz", ".zst"):
        return "Decompress it first, for example with gunzip."
    return "Set data.image_column and data.caption_column, or data.source; see docs/data.md for all formats."
