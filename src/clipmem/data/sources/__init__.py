"""Data sources, a file for each family of formats."""

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import Any

from clipmem import _version
from clipmem.base.errors import InputError, require, shorten
from clipmem.base.hashing import json_sha256
from clipmem.base.recipes import Overrides, as_settings, recipe_from
from clipmem.base.remote import RemotePath, data_path
from clipmem.base.sections import SHIPPED, DataSection, shipped
from clipmem.data.sources import emoji
from clipmem.data.sources.base import (
    SOURCES,
    ClassPrompts,
    InMemory,
    Source,
    TableFile,
    detect,
    open_named,
    reading_data,
)
from clipmem.data.sources.flawed import planted

__all__ = [
    "SOURCES",
    "Data",
    "Named",
    "Source",
    "class_prompts",
    "data_section",
    "detect",
    "files_state",
    "open_data",
    "open_source",
    "reading_data",
]

for _module in iter_modules(__path__):  # each format registers itself
    import_module(f"{__name__}.{_module.name}")

Named = str | Path | DataSection | Mapping[str, object] | Source  # what names a set of pairs
Data = Named | InMemory  # or has it
NO_KEYS: Mapping[str, object] = {}


def named(section: DataSection) -> str:
    """Return the source that a `[data]` section names; the emoji without a path; "" if it must be detected."""
    if section.source not in {"", "auto"}:
        return section.source
    return "" if section.path else emoji.EmojiSource.name


def files_state(section: DataSection) -> str:
    """Hash names, sizes and modification times of the files that a section names; "" if they cannot be listed."""
    if named(section) in SHIPPED:
        return f"clipmem {_version.__version__}"
    roots = [data_path(name) for name in (section.path, section.image_root) if name]
    try:
        if not all(root.exists() for root in roots):
            return ""
        remote = [root.state() for root in roots if isinstance(root, RemotePath)]
        local = [root for root in roots if isinstance(root, Path)]
        files = sorted(file for root in local for file in (root.rglob("*") if root.is_dir() else [root]))
        facts = [(file, file.lstat()) for file in files]  # a broken link is no error here
    except (OSError, InputError):  # a file that vanishes meanwhile
        return ""
    return json_sha256([*remote, *((ascii(str(file)), fact.st_size, fact.st_mtime_ns) for file, fact in facts)])


def class_prompts(section: DataSection, labels: str) -> ClassPrompts | None:
    """Return the class names and prompts of a named source (see `Source.class_prompts`)."""
    name = named(section)
    return SOURCES[name].class_prompts(labels, section) if name else None


def open_source(section: DataSection, *, shard: str | None = None) -> Source:
    """Open the source of a `[data]` section, detected if it names none, with the flaws to plant in it.

    With a `shard`, only that file is read (see `Source`).

    Raises:
        InputError: There are no such data, or their format is unknown.
    """
    section.check_paths()
    with reading_data(section):
        name, path, reason = named(section), section.path, "shipped with clipmem"
        if not name:
            name, path, reason = detect(path, section)
        elif name not in SHIPPED:
            reason = "as specified"
        source = planted(open_named(section.model_copy(update={"source": name, "path": path}), shard), section)
    source.reason = reason
    return source


def open_data(
    data: Any, keys: Mapping[str, object] = NO_KEYS, *, settings: Overrides = (), shard: str | None = None
) -> Source:
    """Open pairs: the one way from what a user names to a source.

    Args:
        data: A path, the name of shipped data, keys of `[data]`, a section, or a table in memory (see `TableFile`); a
            source stays as it is.
        keys: Keys of `[data]` in addition.
        settings: The same as `data.KEY=VALUE`.
        shard: The only file to read (see `Source`).

    Raises:
        InputError: There are no such data, their format is unknown, or a setting is of another section.
    """
    if isinstance(data, Source | DataSection):
        extra = [*(key for key, value in keys.items() if value), *as_settings(settings)]
        require(not extra, "data", f"{', '.join(extra)} for open data", "keys for a path or a table", "Omit them.")
        return data if isinstance(data, Source) else open_source(data, shard=shard)
    table = TableFile(data) if isinstance(data, InMemory) else None
    source = open_source(data_section({"path": str(table.path)} if table else data, keys, settings), shard=shard)
    if table:
        source.title, source.table = f"a table of {len(data):,} rows", table
    elif isinstance(data, str | Path):
        source.title = str(data)
    return source


def data_section(data: Any, keys: Mapping[str, object] = NO_KEYS, settings: Overrides = ()) -> DataSection:
    """Return the `[data]` section of a path, the name of shipped data, or keys, with further keys and settings."""
    if isinstance(data, str | Path):
        ships = keys.get("source", "") in {"", "auto", str(data)} and shipped(str(data))
        data = {"source": str(data)} if ships else {"path": str(data)}
    expected, hint = "a path, a shipped source, keys of [data] or a source", 'For example {"path": "pairs.csv"}.'
    require(isinstance(data, Mapping), "data", shorten(data), expected, hint)
    for setting in as_settings(settings):
        hint = "See the keys of [data] with `clipmem init -`."
        require(setting.startswith("data."), f"--set {setting}", "a setting of another section", "data.KEY=VALUE", hint)
    document = {**data, **{key: value for key, value in keys.items() if value}}
    section = recipe_from({"data": document}, settings, origin="--set" if settings else "data").data
    for key, value in (("path", section.path), ("source", section.source)):
        got = f"{value!r} in addition to {document.get(key)!r}"
        agrees, hint = document.get(key, value) in {value, "", "auto"}, f"Remove --set data.{key}."
        require(agrees, f"--set data.{key}", got, "one of them", hint)
    return section
