"""Checks of names and paths before torch is imported."""

import contextlib
import ctypes
import os
import re
from collections.abc import Generator, Iterable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from clipmem.base.atomic import check_place
from clipmem.base.errors import InputError, shorten
from clipmem.base.paths import checked_path, reading
from clipmem.base.recipes import Recipe
from clipmem.base.require import require, require_one_of
from clipmem.base.sections import DataSection, shipped
from clipmem.models import address, names

if TYPE_CHECKING:
    from clipmem.data.sources.base import Source

DEVICES = ("auto", "cpu", "cuda")
_NO_PATH = re.compile(r"::|\{|^[\w-]+:")


def check_study(recipe: Recipe, out: Path, *, device: str) -> None:
    """Check the names and paths of a recipe, the run folder and the device."""
    check_device(device)
    given = (*recipe.given.target, *recipe.given.reference)
    check_models((*given, *filter(None, (recipe.model.pretrained, recipe.halves.model))))
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
            check_file(path, what)
    check_source(recipe.data)
    if recipe.evaluate.retained and not shipped(recipe.evaluate.retained):
        with opening(DataSection.model_validate({"path": recipe.evaluate.retained}), "[evaluate] retained"):
            pass
    from clipmem.base.folder import RunFolder  # imports polars

    RunFolder(out).check_claim(recipe)
    check_place(out)


def check_device(name: str) -> None:
    """Check that a device can be available, without torch."""
    require_one_of("device", name, DEVICES)
    reason = _no_gpu() if name == "cuda" else ""
    if reason:
        raise InputError(f"device {name!r}", got=reason, expected="cpu, or cuda with a GPU", hint="Use auto.")


def _no_gpu() -> str:
    """Return why torch cannot use a GPU; "" if unknown before importing it."""
    spec = find_spec("torch")
    version = Path(spec.origin).with_name("version.py") if spec and spec.origin else None
    if version is None or not version.is_file():
        return ""
    text = version.read_text(encoding="utf-8")
    built = {name for name in ("cuda", "hip") if re.search(rf"^{name}\b[^=\n]*= *['\"]", text, re.MULTILINE)}
    if not built:
        return "a torch built without GPU support"
    if "hip" in built:
        return ""
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return "no NVIDIA driver on this machine"
    return ""


def check_models(addresses: Iterable[str]) -> None:
    """Check that models, or folders of embeddings, exist at their addresses."""
    for one in addresses:
        address.parse(one)


def check_file(path: str | Path, what: str) -> None:
    """Check that a path is a readable file or folder."""
    place = checked_path(path, what)
    with reading(f"{what} {place}", expected="a readable file"):
        place.stat()
        if not os.access(place, os.R_OK):
            raise PermissionError(13, "Permission denied")


@contextlib.contextmanager
def opening(section: DataSection, what: str = "[data] path") -> Generator[None]:
    """Check the paths of a `[data]` section, and convert errors while its source is opened."""
    for part in section.path.split("::"):  # a list of shards
        checked_path(part, what)
    checked_path(section.image_root, "[data] image_root")
    _check_exists(section, what)
    with reading(f"{what} {section.path}", expected="a readable file or folder"):
        yield


def _check_exists(section: DataSection, what: str) -> None:
    """Refuse a missing path without importing the sources, which takes most of a second."""
    path = section.path
    there = os.path.exists(path)  # noqa: PTH110  Path.exists raises on long lists of shards
    there = there or not path or section.source not in {"", "auto"} or _NO_PATH.search(path)
    hint = "Check the path; for a data set of the Hugging Face hub, use hf-hub:OWNER/NAME."
    got = f"{shorten(path)}, no such file or folder"
    require(there, what, got, "a file, a folder, or names of shards", hint)


def check_source(section: DataSection) -> "Source":
    """Open the source of a `[data]` section, without reading its pairs."""
    with opening(section):
        from clipmem.data.sources import open_source  # imports polars and pyarrow

        return open_source(section)


def check_data(path: str | Path) -> None:
    """Check the path of a data set, which may be the name of a shipped one."""
    if not shipped(str(path)):
        check_source(DataSection.model_validate({"path": str(path)}))


def check_there(path: str, source: str = "") -> None:
    """Check that a path exists and that a data source is known."""
    if source:
        from clipmem.data.sources import SOURCES  # imports polars and pyarrow

        _ = SOURCES[source]
    section = DataSection.model_validate({"path": path, "source": source or "auto"})
    if (path or not source) and not shipped(path) and not os.path.exists(path):  # noqa: PTH110  see _check_exists
        check_source(section)


def check_scores(out: Path) -> None:
    """Check the output file of scores."""
    right, hint = out.suffix.lower() == ".parquet", "Use the extension .parquet."
    require(right, "--out", f"{out}", "a .parquet file", hint)
    check_place(checked_path(out, "--out").parent)


def check_choice(folder: Path | None, models: Sequence[str], *, data: bool) -> None:
    """Check that `clipmem evaluate` has either a run, or models and data."""
    got = "neither a run folder nor --model" if folder is None else "a run folder and --model"
    hint = "For example: clipmem evaluate runs/mine, or clipmem evaluate --model FOLDER --data PATH."
    require((folder is None) == bool(models), "clipmem evaluate", got, "one of them", hint)
    hint = "Add --data PATH, or --source emoji."
    require(data or not models, "--model", "no --data", "pairs to evaluate on", hint)


def check_estimate(
    recipe: Path | None,
    model: str | None,
    data: str | None,
    *,
    trajectory: Path | None,
    budget: float | None,
    out: Path | None,
) -> None:
    """Check that `clipmem estimate` has either a recipe or data, and options only where they have a meaning."""
    hint = "For example: clipmem estimate study.toml --budget 0.5, or clipmem estimate --model FOLDER --data PATH."
    require(
        data or recipe or not model, "--model", "no --data and no recipe", "the pairs that the model trained on", hint
    )
    got = "neither a recipe nor --data" if recipe is None else "a recipe and --data"
    require((recipe is None) == (data is not None), "clipmem estimate", got, "one of them", hint)
    hint = "Name the model that it is of."
    require(trajectory is None or model, "--trajectory", "no --model", "the model whose training it is of", hint)
    require(budget is None or recipe, "--budget", "no recipe", "a recipe to train half-models", "Give a recipe.")
    check_budget(budget)
    if trajectory is not None:
        check_file(trajectory, "--trajectory")
    if recipe is None and out is not None:
        check_scores(out)


def check_budget(budget: float | None) -> None:
    """Check that a budget, if there is one, is above 0 and finite."""
    usable = budget is None or 0 < budget < float("inf")
    require(usable, "--budget", f"{budget or 0:g}", "a positive number of trainings", "Use 0.5.")


def read_alphas(text: str, *, runs: bool) -> list[float]:
    """Read the option `--interpolate`, increasing; alpha = 1 is left out for runs, where it is the run itself."""
    if not text:
        return []
    alphas = [-1.0]
    with contextlib.suppress(ValueError):
        alphas = sorted({float(part) for part in text.split(",")})
    expected, hint = "numbers from 0 to 1, separated by commas", "For example: --interpolate 0,0.25,0.5,0.75,1."
    require(all(0 <= alpha <= 1 for alpha in alphas), "--interpolate", shorten(text), expected, hint)
    require(not runs or alphas != [1], "--interpolate", text, "a number below 1: 1 is the run itself", hint)
    return [alpha for alpha in alphas if not (runs and alpha == 1)]


def check_run(path: str | Path) -> None:
    """Check that a folder is a run folder."""
    from clipmem.base.folder import RunFolder  # imports polars

    RunFolder(path).recipe()
