"""`clipmem compare`: memorization against utility and cost of finished runs."""

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter, validators

from clipmem import report
from clipmem.cli.arguments import RunDir
from clipmem.cli.shell import Screen, command


@command
def compare(
    baseline: RunDir,
    /,
    *others: RunDir,
    out: Path = Path("clipmem-compare"),
    measure: Literal["clipmem", "clipmem_norm"] = "clipmem",
    confidence: Annotated[float | None, Parameter(validator=validators.Number(gt=0, lt=1))] = None,
    utility: str = "",
    along: str = "",
) -> Screen:
    """Compare finished runs with a baseline: memorization, utility and cost over paired seeds.

    Runs must have the same data, split, seeds and alignment. Writes compare.json, compare.parquet and index.html with
    the Pareto figure. Runs that differ in one setting with numbers, such as train.epochs, are also compared along it.
    Audited runs of random members (see `clipmem audit`) are compared by their audits, in compare.json.

    Args:
        baseline: Run folder without mitigation.
        others: Run folders to compare with it.
        out: Output folder.
        measure: Memorization score; clipmem_norm needs the same normalizer in all runs.
        confidence: Level of the intervals; by default the baseline's.
        utility: Metric of utility that verdicts are based on; by default the first that all runs have of
            retrieval_wordings_recall@5, retrieval_recall@5 and linear_probe_acc1.
        along: A setting with numbers in which runs differ, as SECTION.KEY, if they differ in more than one: compares
            each configuration over it, at equal values and each at its own best.
    """
    settings = {"measure": measure, "confidence": confidence, "along": along, "utility": utility}
    document = report.comparison.write_compared([baseline, *others], out, **settings)
    if "audits" in document:
        return Screen("audits", document, f"Written: {out / report.comparison.DOCUMENT}")
    steps = report.templating.next_steps("changed", run=others[0], baseline=baseline)
    return Screen("comparison", document, f"Page: {out / report.comparison.PAGE}", steps)
