"""`clipmem run`: run a study."""

import json
from pathlib import Path

from clipmem import study
from clipmem.base.progress import Reporter
from clipmem.cli.arguments import Budget, Count, Device, Flag, Settings
from clipmem.cli.shell import Screen, command, command_line, show
from clipmem.study.engines import is_first


@command
def run(
    recipe: Path,
    /,
    *,
    budget: Budget | None = None,
    out: Path | None = None,
    set_: Settings = (),
    device: Device = "auto",
    engine: str = "local",
    processes: Count = 1,
    strict: Flag = False,
    yes: Flag = False,
    reporter: Reporter,
) -> Screen | None:
    """Measure what a model memorizes: run the study of a recipe, and write a report.

    Splits the data, trains f and g, embeds, scores, evaluates, reports. Run the same command again to resume after a
    stop: finished stages are not repeated. A folder that was made with another recipe or other data is refused. With
    --budget, trains f on all pairs and estimates the memorization of each, instead of measuring that of some.

    Args:
        recipe: A TOML file (see `clipmem init`), or a shipped recipe: demo, quick, and for GPU machines
            finetune-vit-b-32, finetune-lit, finetune-lora, finetune-siglip, coco-vit-b-32, coco-vit-b-16,
            cc3m-vit-b-32, cc3m-vit-b-16.
        budget: Cost of the estimates in trainings of f, in addition to f: chooses the best estimator (from 1 on with
            f's own architecture, because only its scores have a size) and as many shadow models as fit, and prints what
            would agree better. If f exists, add --set halves.model=MODEL; for a smaller architecture of the
            shadow models, --set halves.proxy=NAME.
        out: Run folder; by default runs/ and the name of the recipe, with -estimate if there is a budget.
        set_: Change a value: --set train.lr=1e-4. Can be repeated.
        device: Device to compute on.
        engine: Execution engine: local, or ray (this machine, or the cluster of RAY_ADDRESS); the same bytes.
        processes: With --engine ray: processes that train each model, each on its GPU; equal up to rounding.
        strict: Stop at the first unusable record. By default such records are left out, counted, and listed in
            skipped.parquet.
        yes: Start even if the study would take more than a day, or more memory or disk space than available. Resuming
            does not need it.
    """
    out = out or Path("runs") / (recipe.stem if budget is None else f"{recipe.stem}-estimate")
    about = {"budget": budget, "out": out, "engine": engine if engine != "local" else "", "strict": strict, "yes": yes}
    about["processes"] = processes if processes > 1 else None
    typed = command_line("run", recipe, settings=set_, **about)
    settings = list(set_)
    if budget is not None:
        settings, plan = study.api.plan_budget(recipe, set_, budget)
        show(Screen("budget", plan))
    study.api.run(
        recipe,
        out,
        settings=settings,
        device=device,
        engine=engine,
        processes=processes,
        reporter=reporter,
        command=typed,
        strict=strict,
        allow_long=yes,
    )
    return screen_of(out) if is_first() else None  # others under torchrun have only helped


def screen_of(out: Path) -> Screen:
    """Return the screen of a finished run: its scores, its estimates without shadow models, or utility alone."""
    if (out / "scores.parquet").is_file():
        return Screen("report", out)
    if (out / "estimates.parquet").is_file():
        return Screen("estimated", study.single_model.estimates_of(out), f"Scores: {out / 'estimates.parquet'}")
    measured = out / "evaluate" / "utility.json"
    return Screen("evaluated", json.loads(measured.read_text(encoding="utf-8")), f"Utility: {measured}")
