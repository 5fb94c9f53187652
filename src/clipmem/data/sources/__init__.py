"""Data sources, one file per format."""

from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import Any

from clipmem import _version
from clipmem.base.errors import require, shorten
from clipmem.base.hashing import json_sha256
from clipmem.base.recipes import recipe_from
from clipmem.base.sections import SHIPPED, DataSection, shipped
from clipmem.data.sources import emoji
from clipmem.data.sources.base import SOURCES, Source, open_named, reading_data
from clipmem.data.sources.detect import Detection, detect
from clipmem.data.sources.flawed import planted

__all__ = [
    "SOURCES",
    "Data",
    "Detection",
    "Source",
    "class_prompts",
    "detect",
    "files_state",
    "open_data",
    "open_source",
]
__all__ += ["reading_data", "resolved"]

for _module in iter_modules(__path__):  # each format registers itself
    import_module(f"{__name__}.{_module.name}")

Data = str | Path | DataSection | Mapping[str, Any] | Source  # what names a set of pairs


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


def open_source(section: DataSection, what: str = "[data] path") -> Source:
    """Open the source of a `[data]` section, with the flaws to plant in it.

    Raises:
        InputError: There are no such data, or their format is unknown.
    """
    section.check_paths(what)
    with reading_data(section, what):
        return planted(open_named(resolved(section)), section)


def open_data(data: Data) -> Source:
    """Open the source of a path, the name of shipped data, keys of `[data]` or a section; return a source as it is.

    Raises:
        InputError: There are no such data, or their format is unknown.
    """
    if isinstance(data, Source):
        return data
    section = data
    if isinstance(data, str | Path):
        section = {"source": name} if (name := shipped(str(data))) else {"path": str(data)}
    if not isinstance(section, DataSection):
        keys = isinstance(section, Mapping)
        expected, hint = "a path, a shipped source, keys of [data] or a source", 'For example {"path": "pairs.csv"}.'
        require(keys, "data", shorten(section), expected, hint)
        section = recipe_from({"data": section}, origin="data").data
    source = open_source(section)
    if isinstance(data, str | Path):
        source.title = str(data)
    return source
