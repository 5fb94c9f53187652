"""`clipmem validate-estimators`: agreement of every estimator with the truth, against its cost."""

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter


def validate_estimators(
    recipe: Path,
    /,
    *,
    out: Path,
    proxy: str = "",
    truth: int = 16,
    set_: Annotated[tuple[str, ...], Parameter(name="--set", negative="", show_default=False)] = (),
    device: Literal["auto", "cpu", "cuda"] = "auto",
    engine: str = "local",
    yes: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Compare every estimator of `clipmem estimate` with the truth of many half-models, on your data.

    Trains f, many full-size half-models, and eight of a proxy if one is named; resumes. Writes validated.json.

    Args:
        recipe: A recipe (see `clipmem init`), or the name of a shipped one.
        out: Folder of the runs.
        proxy: Smaller architecture of further half-models.
        truth: Pairs of full-size half-models to train, 6 or more; those that an estimator does not use are the truth.
        set_: Change a value of the recipe: --set train.epochs=20. Can be repeated.
        device: Device to compute on.
        engine: Execution engine: local, ray, or ray://HEAD:PORT.
        yes: Start even if it would take more than a day, or more memory or disk space than available.
    """
    from rich.console import Console

    from clipmem.study import early

    early.check_device(device)
    early.check_place(out)
    from clipmem.cli.terminal import TerminalReporter
    from clipmem.report.terminal import print_screen
    from clipmem.study.api import SHIPPED_RECIPES
    from clipmem.study.validating import DOCUMENT, validate

    shipped = str(recipe) if str(recipe) in SHIPPED_RECIPES and not recipe.exists() else recipe
    with TerminalReporter(Console(stderr=True)) as reporter:
        found = validate(
            shipped,
            out,
            proxy=proxy,
            truth=truth,
            settings=set_,
            reporter=reporter,
            device=device,
            engine=engine,
            allow_long=yes,
        )
    print_screen("validated", found, Console(), f"Results: {out / DOCUMENT}")
