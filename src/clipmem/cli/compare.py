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
    """Compare finished runs with a baseline: memorization, utility and cost over paired seeds.

    Runs must have the same data, split, seeds, alignment and number of presentations. Writes compare.json,
    compare.parquet and index.html with the Pareto figure.

    Args:
        baseline: Run folder without mitigation.
        others: Run folders to compare with it.
        out: Output folder.
        measure: Memorization score; clipmem_norm needs the same normalizer in all runs.
        confidence: Level of the intervals; by default the baseline's.
    """
    from rich.console import Console

    from clipmem.study import early

    for folder in (baseline, *others):
        early.check_run(folder)
    from clipmem.report.comparison import PAGE, write_compared
    from clipmem.report.terminal import print_screen

    document = write_compared([baseline, *others], out, measure=measure, confidence=confidence)
    print_screen("comparison", document, Console(), f"Page: {out / PAGE}")
