"""Data sources, one file per format."""

from collections.abc import Mapping, Sequence

from clipmem.base.sections import DataSection
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
    "SOURCES", "Detection", "Source", "class_prompts", "classfolder", "coco", "csv_table", "detect", "emoji", "flickr",
    "hub", "imagefolder", "karpathy", "open_source", "parquet", "resolved", "saved", "webdataset",
]  # fmt: skip


def named(section: DataSection) -> str:
    """Return the source that a `[data]` section names; the emoji without a path; "" if it must be detected."""
    if section.source not in {"", "auto"}:
        return section.source
    return "" if section.path else emoji.EmojiSource.name


def class_prompts(section: DataSection, labels: str) -> tuple[Mapping[str, Sequence[str]], Sequence[str]] | None:
    """Return the class names and prompts of a named source (see `Source.class_prompts`)."""
    name = named(section)
    return SOURCES[name].class_prompts(labels) if name else None


def resolved(section: DataSection) -> DataSection:
    """Return a `[data]` section with the source detected."""
    name = named(section)
    if name:
        return section.model_copy(update={"source": name})
    found = detect(section.path, section)
    return section.model_copy(update={"source": found.format, "path": found.path})


def open_source(section: DataSection) -> Source:
    """Open the source of a `[data]` section."""
    return open_named(resolved(section))
