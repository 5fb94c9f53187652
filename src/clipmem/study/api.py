"""`clipmem.run` and `clipmem.load_run`."""

from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clipmem.base.errors import InputError
from clipmem.base.paths import as_read_error, checked_path
from clipmem.base.progress import Reporter
from clipmem.base.recipes import Overrides, Recipe, as_settings, load_recipe, recipe_from
from clipmem.base.require import require
from clipmem.base.suggest import near_names
from clipmem.study import early
from clipmem.study.engines import check_name, is_first, open_engine, watch_launcher

if TYPE_CHECKING:  # imports polars: only after the recipe is validated
    from clipmem.study.run import Run

PUBLISHED_RECIPES = ("coco-vit-b-32", "coco-vit-b-16", "cc3m-vit-b-32", "cc3m-vit-b-16")
FINETUNE_RECIPES = ("finetune-vit-b-32", "finetune-lit", "finetune-lora", "finetune-siglip")
SHIPPED_RECIPES = ("demo", "quick", *FINETUNE_RECIPES, *PUBLISHED_RECIPES)
_MOST = 2**20  # maximum bytes of a recipe


def find_recipe(recipe: Recipe | Mapping[str, Any] | str | Path, settings: Overrides = ()) -> Recipe:
    """Load a recipe from a name, a path or a mapping, and apply settings."""
    if isinstance(recipe, Recipe | Mapping):
        return recipe_from(recipe.model_dump() if isinstance(recipe, Recipe) else recipe, settings)
    if recipe in SHIPPED_RECIPES:
        text = (files("clipmem") / "recipes" / f"{recipe}.toml").read_text(encoding="utf-8")
        return load_recipe(text, settings, origin=f"recipe {recipe!r}")
    path = checked_path(recipe, "recipe")
    return load_recipe(_recipe_text(path), settings, origin=str(path))


def _recipe_text(path: Path) -> str:
    expected, hint = "a TOML file, 'demo' or 'quick'", "Create one with `clipmem init`."
    try:
        if path.exists() and not path.is_file():  # opening a pipe would block
            raise InputError(f"recipe {path}", got="not a regular file", expected=expected, hint=hint)
        with path.open("rb") as stream:
            content = stream.read(_MOST + 1)
        if len(content) > _MOST:
            raise InputError(f"recipe {path}", got=f"more than {_MOST:,} bytes", expected=expected, hint=hint)
        text = content.decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        known = {} if path.exists() else _recipes_at(path.parent)
        near = [known[name] for name in near_names(path.stem, known)]
        hint = f"Did you mean {' or '.join(map(repr, near))}?" if near else hint
        raise as_read_error(error, f"recipe {path}", expected=expected, hint=hint) from error
    # an empty file must not start the default study
    if all(not line.strip() or line.lstrip().startswith("#") for line in text.splitlines()):
        raise InputError(f"recipe {path}", got="a file without keys", expected=expected, hint=hint)
    return text


def _recipes_at(folder: Path) -> dict[str, str]:
    return {**{name: name for name in SHIPPED_RECIPES}, **{file.stem: str(file) for file in folder.glob("*.toml")}}


def run(
    recipe: Recipe | Mapping[str, Any] | str | Path,
    out: str | Path,
    *,
    settings: Overrides = (),
    device: str = "auto",
    engine: str = "local",
    reporter: Reporter | None = None,
    command: str = "",
    strict: bool = False,
    allow_long: bool = False,
) -> "Run":
    """Run a study, or resume it, and return the finished run.

    Args:
        recipe: A recipe, a mapping, a TOML file, or a shipped recipe: `"demo"`, `"quick"`.
        out: Run folder. A folder with the same study, unfinished, is resumed.
        settings: Changes to the recipe: `["train.lr=1e-4"]` or `{"train.lr": 1e-4}`.
        device: `auto`, `cpu` or `cuda`.
        engine: Execution engine: `local`, `ray` or `ray://HEAD:PORT` (see `clipmem.study.engines`).
        reporter: Progress reporter; by default a bar or lines in a notebook, nothing elsewhere.
        command: Command recorded in the manifest; by default this call.
        strict: Stop at the first unusable record; by default such records are left out, counted, and listed in
            `quarantine.parquet`.
        allow_long: Start even if the study would take more than a day, or more memory or disk space than available
            (see `clipmem.study.speed`). Resuming does not need it.

    Raises:
        InputError: The recipe is invalid or does not fit the data, the study takes too long and `allow_long` is not
            set, or the folder has another study.
        RunError: The study failed: a full disk, a non-finite loss, a worker that died.
    """
    watch_launcher()
    if not is_first():  # under torchrun the first process runs the study
        from clipmem.study.engines.torchrun import follow

        follow()
        return load_run(out)
    check_name(engine)
    resolved, place = find_recipe(recipe, settings), checked_path(out, "--out")
    early.check_study(resolved, place, device=device)
    # imports torch, which takes seconds: only after the recipe is validated
    from clipmem.base.folder import RunFolder
    from clipmem.report.progress import reporter_here
    from clipmem.study.stages import Study

    shown = recipe if isinstance(recipe, str | Path) else "recipe"
    with open_engine(engine) as chosen:
        Study(
            resolved,
            RunFolder(place),
            reporter=reporter or reporter_here(),
            command=command or f"clipmem.run({str(shown)!r}, {str(out)!r})",
            user_set=as_settings(settings),
            device=device,
            engine=chosen,
            strict=strict,
            allow_long=allow_long,
        ).run()
    return load_run(place)


def interpolate_run(path: str | Path, alphas: Sequence[float], *, reporter: Reporter | None = None) -> list[Path]:
    """Make the runs `interpolate/alpha-A` in a finished fine-tuned run, without training; return their folders."""
    if not alphas:
        return []
    from clipmem.base import manifest
    from clipmem.base.folder import RunFolder

    folder = RunFolder(checked_path(path, "run folder").resolve())
    recipe, what = folder.recipe(), f"run folder {path}"
    hint = "Interpolate a run with model.pretrained."
    require(bool(recipe.model.pretrained), what, "models trained from scratch", "fine-tuned models", hint)
    hint = f"Run `clipmem run RECIPE.toml --out {path}` again: it resumes where it stopped."
    require(folder.is_done("report"), what, "a run that is not finished", "a finished run", hint)
    device, places = str(manifest.read(folder)["device"]), list[Path]()
    for alpha in alphas:
        document = recipe.model_dump()
        document["mitigate"]["interpolate"] = {"alpha": alpha, "run": str(folder.path)}
        places.append(folder.path / "interpolate" / f"alpha-{alpha:g}")
        # the study itself had consent
        run(recipe_from(document), places[-1], device=device, reporter=reporter, allow_long=True)
    return places


def load_run(path: str | Path) -> "Run":
    """Open a finished run folder, without importing torch.

    Raises:
        InputError: The run is not finished, or was made by a newer version of clipmem.
    """
    from clipmem.study.run import Run

    return Run(path)


def report(path: str | Path) -> Path:
    """Rebuild the summary and the report of a scored run folder; return the path of the report."""
    from clipmem.base.folder import RunFolder

    folder = RunFolder(path)
    source = early.check_source(folder.recipe().data)
    from clipmem.study.stages import renew_report  # imports torch

    with folder.locked():
        return renew_report(folder, source)[-1]
