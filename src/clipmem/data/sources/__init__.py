"""Data sources, one file a format. Import `open_source`; a new format is one new file here and one line below."""

from clipmem.base.recipes import DataSection
from clipmem.data.sources import (
    classfolder,
    coco,
    csv_table,
    emoji,
    flickr,
    hub,
    imagefolder,
    karpathy,
    parquet,
    saved,
    webdataset,
)
from clipmem.data.sources.base import SOURCES, Source, open_named
from clipmem.data.sources.detect import Detection, detect

__all__ = [
    "SOURCES", "Detection", "Source", "classfolder", "coco", "csv_table", "detect", "emoji", "flickr", "hub",
    "imagefolder", "karpathy", "open_source", "parquet", "resolved", "saved", "webdataset",
]  # fmt: skip


def resolved(section: DataSection) -> DataSection:
    """Return a `[data]` section that names its source: `auto` or nothing is what lies at its path, or the emoji."""
    if section.source not in {"", "auto"}:
        return section
    if not section.path:
        return section.model_copy(update={"source": emoji.EmojiSource.name})
    found = detect(section.path, section)
    return section.model_copy(update={"source": found.format, "path": found.path})


def open_source(section: DataSection) -> Source:
    """Open the source that a recipe's `[data]` section names; `auto` or nothing: what lies at its path.

    Raises:
        InputError: The name is unknown, the path holds no known format, or the source cannot read it.
    """
    return open_named(resolved(section))
