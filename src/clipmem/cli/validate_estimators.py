"""`clipmem validate-estimators`: agreement of every estimator with the truth, against its cost."""

from pathlib import Path

from clipmem import study
from clipmem.base.paths import check_place
from clipmem.base.progress import Reporter
from clipmem.cli.arguments import Device, Flag, Settings
from clipmem.cli.shell import Screen, command


@command
def validate_estimators(
    recipe: Path,
    /,
    *,
    out: Path,
    proxy: str = "",
    truth: int = 16,
    set_: Settings = (),
    device: Device = "auto",
    engine: str = "local",
    yes: Flag = False,
    reporter: Reporter,
) -> Screen:
    """Compare the estimators of clipmem run --budget with the scores of many shadow models, on your data.

    Trains f, many full-size shadow models, and 16 of a proxy if one is named; resumes. Writes validated.json.

    Args:
        recipe: A recipe (see `clipmem init`), or the name of a shipped one.
        out: Folder of the runs.
        proxy: Smaller architecture of further shadow models.
        truth: Pairs of full-size shadow models to train, 6 or more; those that an estimator does not use judge it.
        set_: Change a value of the recipe: --set train.epochs=20. Can be repeated.
        device: Device to compute on.
        engine: Execution engine: local or ray.
        yes: Start even if it would take more than a day, or more memory or disk space than available.
    """
    check_place(out)
    options = {"device": device, "engine": engine, "allow_long": yes}
    document = study.validating.validate(
        recipe, out, proxy=proxy, truth=truth, settings=set_, reporter=reporter, **options
    )
    return Screen("validated", document, f"Results: {out / study.validating.DOCUMENT}")
