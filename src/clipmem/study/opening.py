"""Open what a recipe names, once and before torch is imported: models, files, data and the run folder."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from clipmem import study
from clipmem.base.errors import require
from clipmem.base.folder import RunFolder
from clipmem.base.machine import check_device
from clipmem.base.paths import atomic_write, check_place, check_readable
from clipmem.base.recipes import Recipe, recipe_from
from clipmem.base.sections import DataSection, shipped
from clipmem.data.sources import SOURCES, Data, open_data, open_source
from clipmem.data.sources.base import Source, TableFile, is_table
from clipmem.models import address, names

__all__ = ["Data", "RunFolder", "Source", "open_data", "open_pairs", "open_study", "section_of", "tested_section"]


def open_study(recipe: Recipe, out: Path, *, device: str) -> tuple[RunFolder, Source]:
    """Check the names and paths of a recipe; return the run folder and the open source of its data.

    Raises:
        InputError: A model, a file, the data or the device is not there, or the folder has something else.
    """
    check_device(device)
    given = (*recipe.given.target, *recipe.given.reference)
    for model in (*given, *filter(None, (recipe.model.pretrained, recipe.halves.model))):
        address.parse(model)
    if recipe.model.name and not given:
        names.settings_of(recipe.model.name)
    files = {
        "[given] roles": recipe.given.roles,
        "[split] wrong": recipe.split.wrong,
        "[halves] trajectory": recipe.halves.trajectory,
        "[dejavu] objects": recipe.dejavu.objects,
        "[evaluate] classnames": recipe.evaluate.classnames,
    }
    for what, path in files.items():
        if path:
            check_readable(path, what)
    source = open_source(recipe.data)
    retained = recipe.evaluate.retained
    if retained and not shipped(retained):
        DataSection.model_validate({"path": retained}).check_paths("[evaluate] retained")
    folder = RunFolder(out)
    folder.check_claim(recipe)
    check_place(out)
    return folder, source


def open_pairs(data: Any, keys: Mapping[str, Any]) -> Source:
    """Open data by a path or a table in memory, with keys of `[data]` (see `clipmem.load_pairs`)."""
    if is_table(data):
        file = TableFile(data)
        source = open_source(_section({**keys, "path": str(file.path)}))
        source.title, source.table = f"a table of {len(data):,} rows", file
        return source
    if not keys or not isinstance(data, str | Path):
        return open_data(data)
    named = {"source": name} if (name := shipped(str(data))) else {"path": str(data)}
    source = open_source(_section({**named, **keys}))
    source.title = str(data)
    return source


def _section(keys: Mapping[str, Any]) -> DataSection:
    return recipe_from({"data": keys}, origin="data").data


def section_of(data: Data, out: Path) -> DataSection:
    """Return the `[data]` section of pairs for a recipe; a table in memory is written next to the run folder `out`."""
    source = open_data(data)
    if source.table is None:
        return source.section
    file = out.with_name(f"{out.name}-pairs.parquet")
    same = file.is_file() and file.read_bytes() == source.table.path.read_bytes()
    require(same or not file.exists(), f"{file}", "an existing file", "a new file", "Choose another run folder.")
    atomic_write(file, source.table.path.read_bytes())
    return source.section.model_copy(update={"path": str(file)})


def tested_section(data: Data) -> DataSection | None:
    """Return the `[data]` section of pairs to evaluate on, whose labels may stand for captions.

    Keys are `path`, `source`, `label_column`, `caption_column` and `image_column`.
    """
    if isinstance(data, Source | DataSection):
        return data if isinstance(data, DataSection) else data.section
    keys = {"path": str(data)} if isinstance(data, str | Path) else dict(data)
    path, source = keys.get("path"), str(keys.get("source", ""))
    if source:
        _ = SOURCES[source]  # raises
    if path is not None and not (source or shipped(path)):
        DataSection.model_validate({"path": path}).check_paths()
    columns = {name: keys.get(f"{name}_column") for name in ("label", "caption", "image")}
    return study.evaluating.data_section(path, source, **columns)
