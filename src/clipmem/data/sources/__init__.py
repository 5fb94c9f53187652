"""Data sources, one file a format. Import `open_source`; a new format is one new file here and one line below."""

from clipmem.base.recipes import DataSection
from clipmem.data.sources import coco, csv_table, emoji, flickr, imagefolder, karpathy, parquet, saved, webdataset
from clipmem.data.sources.base import SOURCES, Source
from clipmem.data.sources.detect import Detection, detect

__all__ = [
    "SOURCES", "Detection", "Source", "coco", "csv_table", "detect", "emoji", "flickr", "imagefolder", "karpathy",
    "open_source", "parquet", "saved", "webdataset",
]  # fmt: skip


def open_source(section: DataSection) -> Source:
    """Open the source that a recipe's `[data]` section names; `auto` or nothing: what lies at its path.

    Raises:
        InputError: The name is unknown, the path holds no known format, or the source cannot read it.
    """
    if section.source not in {"", "auto"}:
        return SOURCES[section.source](section)
    if not section.path:
        return emoji.EmojiSource(section)
    found = detect(section.path, section)
    return SOURCES[found.format](section.model_copy(update={"source": found.format, "path": found.path}))
