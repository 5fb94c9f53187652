"""`clipmem compare`: memorization against utility and cost of finished runs."""

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter, validators


def compare(
    baseline: Path,
    /,
    *others: Path,
    out: Path = Path("clipmem-compare"),
    measure: Literal["clipmem", "clipmem_norm"] = "clipmem",
    confidence: Annotated[float | None, Parameter(validator=validators.Number(gt=0, lt=1))] = None,
) -> None:
    """Compare finished runs with a baseline: memorization, utility, and what each costs, over paired seeds.

    Runs compare where data, split, seeds, alignment and presentations are the same; others are refused with the reason.
    Writes compare.json, compare.parquet and index.html with the Pareto figure.

    Args:
        baseline: The folder of the run without mitigation.
        others: Folders of the runs to compare with it.
        out: Where the comparison goes.
        measure: What memorization is measured by; clipmem_norm needs one normalizer in all runs.
        confidence: Level of the intervals; by default that of the baseline's recipe.
    """
    from rich.console import Console

    from clipmem.study import early

    for folder in (baseline, *others):
        early.check_run(folder)
    from clipmem.report.comparison import PAGE, write_compared
    from clipmem.report.terminal import print_screen

    document = write_compared([baseline, *others], out, measure=measure, confidence=confidence)
    print_screen("comparison", document, Console(), f"Page: {out / PAGE}")
