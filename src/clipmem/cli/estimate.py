"""`clipmem estimate`: scores of single pairs without twins of f."""

import shlex
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from clipmem.base.recipes import Recipe


def estimate(
    recipe: Path | None = None,
    /,
    *,
    model: str | None = None,
    data: str | None = None,
    trajectory: Path | None = None,
    budget: float | None = None,
    proxy: str = "",
    out: Path | None = None,
    captions: int | None = None,
    set_: Annotated[tuple[str, ...], Parameter(name="--set", negative="", show_default=False)] = (),
    device: Literal["auto", "cpu", "cuda"] = "auto",
    engine: str = "local",
    yes: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Estimate the memorization of every training pair for 1 + B trainings of f, or B if f exists (--budget B).

    With a recipe: trains f on all pairs of the pool, unless --model is f, and a few half-models on random halves of
    them; resumes like `clipmem run`. With --data instead: trains nothing; from the model, pixels and words it makes a
    ranking, which agrees less with CLIPMem.

    Args:
        recipe: A recipe (see `clipmem init`), or the name of a shipped one. Its pairs, split sizes added up, are scored
            by protocol halves.
        model: A model that trained on the data: folder or other address. With a recipe, its pairs except the external
            ones must be those that the model trained on, and the recipe trains the half-models.
        data: Its training pairs, without a recipe: a file or folder, or emoji.
        trajectory: What the model's training recorded: a file of AlignmentRecorder, by uid.
        budget: Cost of the half-models, in trainings of f: chooses the best estimator (from 1 on with f's own
            architecture, because only its scores have a size) and as many half-models as fit, and prints what would
            agree better. Below one pair of half-models, none are trained. By default halves.pairs of the recipe.
        proxy: Smaller architecture of the half-models: cheaper, and only the order of scores has a meaning. By default
            f's own, or with a budget below 1 a smaller one that clipmem knows.
        out: Run folder; by default runs/NAME-estimate. Without a recipe: table of scores (.parquet).
        captions: Maximum number of captions per pair, without a recipe; by default all.
        set_: Change a value of the recipe: --set train.epochs=20. Can be repeated.
        device: Device to compute on.
        engine: Execution engine: local, ray, or ray://HEAD:PORT.
        yes: Start even if it would take more than a day, or more memory or disk space than available.
    """
    from clipmem.study import early

    early.check_estimate(recipe, model, data, trajectory=trajectory, budget=budget, out=out)
    early.check_device(device)
    if recipe is None:
        _without_training(model or "", str(data), trajectory, out or Path("estimates.parquet"), captions, device)
        return
    from clipmem.cli.terminal import run_and_show
    from clipmem.study.api import SHIPPED_RECIPES, find_recipe

    shipped = str(recipe) if str(recipe) in SHIPPED_RECIPES and not recipe.exists() else recipe
    out = out or Path("runs") / f"{recipe.stem}-estimate"
    given = {"proxy": proxy, "model": model, "trajectory": trajectory}
    settings = [
        "protocol=halves",
        "train.record=true",
        *(f"halves.{key}={value}" for key, value in given.items() if value),
    ]
    if budget is not None:
        settings += _planned(find_recipe(shipped, [*settings, *set_]), budget)
    settings += set_
    command = shlex.join(["clipmem", "estimate", str(recipe), *(f"--set={item}" for item in settings), f"--out={out}"])
    options = {"settings": settings, "command": command, "device": device, "engine": engine, "allow_long": yes}
    run_and_show(shipped, out, **options)


def _planned(recipe: Recipe, budget: float) -> list[str]:
    """Show what the budget buys; return the settings for it."""
    from rich.console import Console

    from clipmem.report.terminal import print_screen
    from clipmem.study.budget import plan
    from clipmem.study.engines import is_first

    found = plan(recipe, budget)
    if is_first():
        print_screen("budget", found, Console())
    return found.settings


def _without_training(
    model: str, data: str, trajectory: Path | None, out: Path, captions: int | None, device: str
) -> None:
    from rich.console import Console

    from clipmem.study import early

    if model:
        early.check_models([model])
    early.check_data(data)
    from clipmem.cli.terminal import TerminalReporter
    from clipmem.report.terminal import print_screen
    from clipmem.study.estimating_one import estimate_with

    with TerminalReporter(Console(stderr=True)) as reporter:
        found = estimate_with(
            model, data, out, trajectory=trajectory, captions=captions, device=device, reporter=reporter
        )
    print_screen("estimated", found, Console(), f"Scores: {out}")
