"""`clipmem.run` and `clipmem.load_run`: what a user calls from Python."""

from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from clipmem.base.errors import InputError
from clipmem.base.progress import Quiet, Reporter
from clipmem.base.recipes import Recipe, load_recipe, recipe_from
from clipmem.store.folder import RunFolder
from clipmem.study.engines import check_name, is_first, open_engine, watch_launcher
from clipmem.study.loaded import Run

PUBLISHED_RECIPES = ("coco-vit-b-32", "coco-vit-b-16", "cc3m-vit-b-32", "cc3m-vit-b-16")
SHIPPED_RECIPES = ("demo", "quick", *PUBLISHED_RECIPES)


def find_recipe(recipe: Recipe | Mapping[str, Any] | str | Path, settings: Sequence[str] = ()) -> Recipe:
    """Return the recipe that a name, a path, a mapping or a recipe stands for.

    Raises:
        InputError: There is no such file, or what it holds is no recipe.
    """
    if isinstance(recipe, Recipe):
        return recipe
    if isinstance(recipe, Mapping):
        return recipe_from(recipe)
    if recipe in SHIPPED_RECIPES:
        text = (files("clipmem") / "recipes" / f"{recipe}.toml").read_text(encoding="utf-8")
        return load_recipe(text, settings, origin=f"recipe {recipe!r}")
    path = Path(recipe)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise InputError(
            f"recipe {path}",
            got=str(reason),
            expected="a TOML file, 'demo' or 'quick'",
            todo="`clipmem init` writes one to start from.",
        ) from error
    return load_recipe(text, settings, origin=str(path))


def run(
    recipe: Recipe | Mapping[str, Any] | str | Path,
    out: str | Path,
    *,
    settings: Sequence[str] = (),
    device: str = "auto",
    engine: str = "local",
    reporter: Reporter | None = None,
    command: str = "",
    strict: bool = False,
) -> Run:
    """Make a study, or what is left of it, and return it.

    Args:
        recipe: A recipe, plain data, a TOML file, or a shipped one: `"demo"`, `"quick"`.
        out: The run folder. If it holds the same study unfinished, the study goes on there.
        settings: Changes to a recipe read from a file or a name, for example `["train.lr=1e-4"]`.
        device: `auto`, `cpu` or `cuda`.
        engine: Who trains and embeds: `local`, `ray` or `ray://HEAD:PORT` (see `clipmem.study.engines`).
        reporter: Who is told of the progress; nobody by default.
        command: What to write into the manifest as the command; by default this call.
        strict: Stop at the first record that cannot be used; by default such records are left out, counted, and listed
            in `quarantine.parquet`.

    Raises:
        InputError: The recipe is wrong, asks for more pairs than there are, or the folder holds another study.
        RunError: The study failed: disk full, a loss that is not finite, a worker that died.
    """
    watch_launcher()
    if not is_first():  # under torchrun the first process makes the study
        from clipmem.study.engines.together import follow

        follow()
        return Run(out)
    check_name(engine)
    resolved, folder = find_recipe(recipe, settings), RunFolder(out)
    from clipmem.study.pipeline import Study  # imports torch, which takes seconds: not before the recipe is right

    shown = recipe if isinstance(recipe, str | Path) else "recipe"
    with open_engine(engine) as chosen:
        Study(
            resolved,
            folder,
            reporter=reporter or Quiet(),
            command=command or f"clipmem.run({str(shown)!r}, {str(out)!r})",
            user_set=settings,
            device=device,
            engine=chosen,
            strict=strict,
        ).run()
    return Run(folder.path)


def load_run(path: str | Path) -> Run:
    """Read a finished run folder; imports no torch.

    Raises:
        InputError: It is not the folder of a finished run, or a newer clipmem made it.
    """
    return Run(path)


def report(path: str | Path) -> Path:
    """Write the summary and the report page of a scored run folder again and return the page's path.

    Raises:
        InputError: The folder is not a run folder whose scores are finished.
    """
    from clipmem.data.sources import open_source
    from clipmem.study.pipeline import write_summary_and_report

    folder = RunFolder(path)
    recipe = folder.recipe()
    with folder.locked():
        outputs = write_summary_and_report(folder, open_source(recipe.data))
        if folder.is_done("evaluate"):
            folder.finish("report", outputs, folder.read_json("summary.json")["seconds"]["report"])
    return outputs[-1]
