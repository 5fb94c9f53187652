"""Data sources, one file per format."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from clipmem import _version
from clipmem.base.hashing import json_sha256
from clipmem.base.sections import SHIPPED, DataSection
from clipmem.data.sources import (
    classfolder,
    coco,
    csv_table,
    emoji,
    emoji_artists,
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
from clipmem.data.sources.flawed import planted

__all__ = [
    "SOURCES",
    "Detection",
    "Source",
    "class_prompts",
    "classfolder",
    "coco",
    "csv_table",
    "detect",
    "emoji",
    "emoji_artists",
    "files_state",
    "flickr",
    "hub",
    "imagefolder",
    "karpathy",
    "open_source",
    "parquet",
    "resolved",
    "saved",
    "webdataset",
]  # fmt: skip


def named(section: DataSection) -> str:
    """Return the source that a `[data]` section names; the emoji without a path; "" if it must be detected."""
    if section.source not in {"", "auto"}:
        return section.source
    return "" if section.path else emoji.EmojiSource.name


def files_state(section: DataSection) -> str:
    """Hash names, sizes and modification times of the files that a section names; "" if they cannot be listed."""
    if named(section) in SHIPPED:
        return f"clipmem {_version.__version__}"
    roots = [Path(name) for name in (section.path, section.image_root) if name]
    try:
        if not all(root.exists() for root in roots):
            return ""
        files = sorted(file for root in roots for file in (root.rglob("*") if root.is_dir() else [root]))
        facts = [(file, file.lstat()) for file in files]  # a broken link is no error here
    except OSError:  # a file that vanishes meanwhile
        return ""
    return json_sha256([(ascii(str(file)), fact.st_size, fact.st_mtime_ns) for file, fact in facts])


def class_prompts(section: DataSection, labels: str) -> tuple[Mapping[str, Sequence[str]] | None, Sequence[str]] | None:
    """Return the class names and prompts of a named source (see `Source.class_prompts`)."""
    name = named(section)
    return SOURCES[name].class_prompts(labels, section) if name else None


def resolved(section: DataSection) -> DataSection:
    """Return a `[data]` section with the source detected."""
    name = named(section)
    if name:
        return section.model_copy(update={"source": name})
    found = detect(section.path, section)
    return section.model_copy(update={"source": found.format, "path": found.path})


def open_source(section: DataSection) -> Source:
    """Open the source of a `[data]` section, with the flaws to plant in it."""
    return planted(open_named(resolved(section)), section)
