"""`clipmem compare`: memorization against utility and cost of finished runs."""

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter, validators

from clipmem.base.require import require


def compare(
    baseline: str,
    /,
    *others: str,
    out: Path = Path("clipmem-compare"),
    measure: Literal["clipmem", "clipmem_norm"] = "clipmem",
    confidence: Annotated[float | None, Parameter(validator=validators.Number(gt=0, lt=1))] = None,
    utility: str = "",
    along: str = "",
    interpolate: str = "",
    data: str | None = None,
) -> None:
    """Compare finished runs with a baseline: memorization, utility and cost over paired seeds.

    Runs must have the same data, split, seeds and alignment. Audited runs (see `clipmem audit`) are compared by their
    audits: writes compare.json. Otherwise writes compare.json, compare.parquet and index.html with
    the Pareto figure. With --along, also compares configurations over a setting such as train.epochs, at equal values
    and each at its own best. With --interpolate, compares the models between those of one
    fine-tuned run and its pretrained model; with --data, evaluates those between two models, and writes
    interpolate.json.

    Args:
        baseline: Run folder without mitigation; with --data, a model before fine-tuning.
        others: Run folders to compare with it; with --data, that model after fine-tuning.
        out: Output folder.
        measure: Memorization score; clipmem_norm needs the same normalizer in all runs.
        confidence: Level of the intervals; by default the baseline's.
        utility: Metric of utility that verdicts are based on; by default the first that all runs have of
            retrieval_wordings_recall@5, retrieval_recall@5 and linear_probe_acc1.
        along: A setting with numbers in which runs differ, as SECTION.KEY: train.epochs.
        interpolate: Weights of the fine-tuned model from 0 to 1, separated by commas: 0,0.25,0.5,0.75,1. The runs are
            written to the folder interpolate of the run.
        data: With --interpolate and two models: pairs to evaluate on.
    """
    from rich.console import Console

    from clipmem.study import early

    alphas = early.read_alphas(interpolate, runs=data is None)
    got, between = f"{1 + len(others)} runs or models, --data {data}", data is not None
    hint = "For example: RUN --interpolate 0,0.5, or BASE TUNED --interpolate 0,0.5 --data PATH."
    usable = len(others) == between if alphas else not between
    require(usable, "--interpolate", got, "one run, or two models with --data", hint)
    alone, hint = not (along and alphas), "Omit one of them: --interpolate compares along mitigate.interpolate.alpha."
    require(alone, "--along", f"--along {along} and --interpolate {interpolate}", "one of them", hint)
    if data is not None:
        early.check_models((baseline, *others))
        early.check_there(data)
    else:
        for folder in (baseline, *others):
            early.check_run(folder)
    from clipmem.cli.terminal import TerminalReporter
    from clipmem.report.terminal import print_screen

    with TerminalReporter(Console(stderr=True)) as reporter:
        if between:
            from clipmem.study.evaluating import data_section, evaluate_given

            section = data_section(data, "", label=None, caption=None, image=None)
            place = out / "interpolate.json"
            found = evaluate_given((baseline, *others), section, place, alphas=alphas, reporter=reporter)
            screen, document = "evaluated", found.document
        else:
            from clipmem.report.comparison_page import DOCUMENT, PAGE, write_compared
            from clipmem.study.api import interpolate_run

            folders = [Path(baseline), *map(Path, others), *interpolate_run(baseline, alphas, reporter=reporter)]
            along, place, screen = "mitigate.interpolate.alpha" if alphas else along, out / PAGE, "comparison"
            settings = {"measure": measure, "confidence": confidence, "along": along, "utility": utility}
            document = write_compared(folders, out, **settings)
            if "audits" in document:
                place, screen = out / DOCUMENT, "audits"
    print_screen(screen, document, Console(), f"Page: {place}" if place.name == "index.html" else f"Written: {place}")
