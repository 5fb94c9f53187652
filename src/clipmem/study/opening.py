"""Open what a recipe names, once and before torch is imported: models, files, data and the run folder."""

import contextlib
from pathlib import Path

from clipmem.base.errors import InputError, require
from clipmem.base.folder import RunFolder
from clipmem.base.machine import check_device
from clipmem.base.paths import atomic_write, check_place, check_readable
from clipmem.base.recipes import Recipe
from clipmem.base.sections import DataSection, shipped
from clipmem.data.sources import SOURCES, Data, Named, data_section, open_data, open_source
from clipmem.data.sources.base import InMemory, Source, detect
from clipmem.models import names

_TABLES = ("parquet", "csv", "jsonl", "imagefolder", "saved", "hub")
__all__ = ["Data", "InMemory", "RunFolder", "Source", "evaluation_section", "open_data", "open_study", "section_of"]


def open_study(recipe: Recipe, out: Path, *, device: str) -> tuple[RunFolder, Source]:
    """Check the names and paths of a recipe; return the run folder and the open source of its data.

    Raises:
        InputError: A model, a file, the data or the device is not there, or the folder has something else.
    """
    check_device(device)
    models = (*recipe.given.target, *recipe.given.reference)
    for model in (*models, *filter(None, (recipe.model.pretrained, recipe.halves.model))):
        names.parse(model)
    if recipe.model.name and not models:
        names.settings_of(recipe.model.name)
    files = {
        "[given] roles": recipe.given.roles,
        "[split] wrong": recipe.split.wrong,
        "[halves] trajectory": recipe.halves.trajectory,
        "[dejavu] objects": recipe.dejavu.objects,
        "[evaluate] classnames": recipe.evaluate.classnames,
    }
    for key, path in files.items():
        if path:
            check_readable(path, key)
    source = open_source(recipe.data)
    retained = recipe.evaluate.retained
    if retained and not shipped(retained):
        DataSection.model_validate({"path": retained}).check_paths("[evaluate] retained")
    folder = RunFolder(out)
    folder.check_claim(recipe)
    check_place(out)
    return folder, source


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


def evaluation_section(data: Named) -> DataSection:
    """Return the `[data]` section of pairs to evaluate on, whose labels may stand for captions.

    Without a source, the format is detected: a table with captions, a table with labels as captions, other data, or a
    folder of classes.
    """
    if isinstance(data, Source | DataSection):
        return data if isinstance(data, DataSection) else data.section
    keys = {"path": str(data)} if isinstance(data, str | Path) else dict(data)
    if source := keys.get("source"):
        _ = SOURCES[str(source)]  # raises
    elif source := shipped(str(keys.get("path", ""))):
        keys |= {"path": "", "source": source}
    label = keys.get("label_column", "label")
    if source:
        of_table = {"label_column": label, "caption_column": label} if source == "parquet" else {}
        return data_section({**of_table, **keys})
    tried = data_section({**keys, "label_column": label, "source": "auto"})
    tried.check_paths()
    detected = list[DataSection]()
    labels_as_captions = [] if "caption_column" in keys else [tried.model_copy(update={"caption_column": label})]
    for section in (tried, *labels_as_captions):
        with contextlib.suppress(InputError):
            detection = detect(section.path, section)
            column = label if detection.format in _TABLES else keys.get("label_column", "")
            changes = {"source": detection.format, "path": detection.path, "label_column": column}
            detected.append(section.model_copy(update=changes))
    if detected:
        return next((section for section in detected if section.source in _TABLES), detected[0])
    if Path(tried.path).is_dir():
        return DataSection.model_validate({"source": "classfolder", "path": tried.path})
    detect(tried.path, tried)  # raises
    return tried
