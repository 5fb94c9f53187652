"""What is refused before torch is imported: names and paths that a recipe or a command cannot mean."""

import contextlib
import ctypes
import os
import re
from collections.abc import Generator, Iterable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from clipmem.base.errors import InputError, shorten
from clipmem.base.paths import checked_path, reading
from clipmem.base.recipes import Recipe
from clipmem.base.require import require, require_one_of
from clipmem.base.sections import DataSection
from clipmem.models import address, names
from clipmem.store.atomic import check_place

if TYPE_CHECKING:
    from clipmem.data.sources.base import Source

DEVICES = ("auto", "cpu", "cuda")
_NO_PATH = re.compile(r"::|\{|^[\w-]+:")


def check_study(recipe: Recipe, out: Path, *, device: str) -> None:
    """Check the names and paths of a recipe, the run folder and the device."""
    check_device(device)
    given = (*recipe.given.target, *recipe.given.reference)
    if given:
        check_models(given)
    else:
        names.settings_of(recipe.model.name)
    files = {
        "[given] roles": recipe.given.roles,
        "[dejavu] objects": recipe.dejavu.objects,
        "[dejavu] text_embeddings": recipe.dejavu.text_embeddings,
        "[evaluate] classnames": recipe.evaluate.classnames,
    }
    for what, path in files.items():
        if path:
            check_file(path, what)
    check_source(recipe.data)
    from clipmem.store.folder import RunFolder  # imports polars

    RunFolder(out).check_claim(recipe)
    check_place(out)


def check_device(name: str) -> None:
    """Check that a device can be here, as far as that can be told without torch."""
    require_one_of("device", name, DEVICES)
    reason = _no_gpu() if name == "cuda" else ""
    if reason:
        raise InputError(f"device {name!r}", got=reason, expected="cpu, or cuda where there is a GPU", hint="Use auto.")


def _no_gpu() -> str:
    """Say why torch can have no GPU; nothing where that is not known before it is imported."""
    spec = find_spec("torch")
    version = Path(spec.origin).with_name("version.py") if spec and spec.origin else None
    if version is None or not version.is_file():
        return ""
    text = version.read_text(encoding="utf-8")
    built = {name for name in ("cuda", "hip") if re.search(rf"^{name}\b[^=\n]*= *['\"]", text, re.MULTILINE)}
    if not built:
        return "a torch that was built without GPUs"
    if "hip" in built:
        return ""
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return "no NVIDIA driver on this machine"
    return ""


def check_models(addresses: Iterable[str]) -> None:
    """Check that there is something at the addresses of models, or of folders of embeddings."""
    for one in addresses:
        address.parse(one)


def check_file(path: str | Path, what: str) -> None:
    """Check that a path leads to a file, or a folder, that can be read."""
    place = checked_path(path, what)
    with reading(f"{what} {place}", expected="a file that can be read"):
        place.stat()
        if not os.access(place, os.R_OK):
            raise PermissionError(13, "Permission denied")


@contextlib.contextmanager
def opening(section: DataSection) -> Generator[None]:
    """Check the paths of a `[data]` section, and explain what goes wrong while its source is found and opened."""
    for part in section.path.split("::"):  # a list of shards is no path
        checked_path(part, "[data] path")
    checked_path(section.image_root, "[data] image_root")
    _look_for(section)
    with reading(f"[data] path {section.path}", expected="a file or folder that can be read"):
        yield


def _look_for(section: DataSection) -> None:
    """Refuse a path where nothing lies, without the sources, whose import takes most of a second."""
    path = section.path
    there = os.path.exists(path)  # noqa: PTH110  the method of Path raises on a list of shards that is long
    there = there or not path or section.source not in {"", "auto"} or _NO_PATH.search(path)
    hint = "Check the path; a data set of Hugging Face's hub is written hf-hub:OWNER/NAME."
    got = f"{shorten(path)}, no such file or folder"
    require(there, "[data] path", got, "a file, a folder, or names of shards", hint)


def check_source(section: DataSection) -> "Source":
    """Open the source behind a `[data]` section, without reading its pairs."""
    with opening(section):
        from clipmem.data.sources import open_source  # imports polars and pyarrow

        return open_source(section)


def check_data(path: str | Path) -> None:
    """Check the path of a data set given to a command; `emoji` is the shipped one."""
    if str(path) != "emoji" or Path(path).exists():
        check_source(DataSection.model_validate({"path": str(path)}))


def check_there(path: str, source: str = "") -> None:
    """Check that something lies at a path, whatever it is, and that a data source is known."""
    if source:
        from clipmem.data.sources import SOURCES  # imports polars and pyarrow

        _ = SOURCES[source]
    section = DataSection.model_validate({"path": path, "source": source or "auto"})
    if path and path != "emoji" and not os.path.exists(path):  # noqa: PTH110  see _look_for
        check_source(section)


def check_scores(out: Path) -> None:
    """Check the name of a table of scores to write, and its place."""
    right, hint = out.suffix.lower() == ".parquet", "Scores are written as Parquet."
    require(right, "--out", f"{out}", "a name that ends in .parquet", hint)
    check_place(checked_path(out, "--out").parent)


def check_choice(folder: Path | None, models: Sequence[str], *, data: bool) -> None:
    """Check that `clipmem evaluate` is told of a run or of models, and of data for models."""
    got = "neither a run folder nor --model" if folder is None else "a run folder and --model"
    hint = "For example: clipmem evaluate runs/mine, or clipmem evaluate --model FOLDER --data PATH."
    require((folder is None) == bool(models), "clipmem evaluate", got, "one of them", hint)
    hint = "Add --data PATH, or --source emoji."
    require(data or not models, "--model", "no --data", "pairs to test on: a model alone has none", hint)


def check_run(path: str | Path) -> None:
    """Check that a folder is a run folder; whether what is needed of it is finished, the command says."""
    from clipmem.store.folder import RunFolder  # imports polars

    RunFolder(path).recipe()
