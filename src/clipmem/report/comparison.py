"""Compare runs with a baseline, seed by seed, and find the Pareto front of memorization and utility; compare audits.

With m_k the measure of a run and b_k that of the baseline under seed k, the difference is the mean of m_k - b_k with
its t interval over seeds (`functional.paired_test`): a seed has the same initial weights and order of pairs in both
runs, so its effect cancels. Cost is a ratio: exp of the mean of log m_r - log b_r over models r.

Memorization is the half-difference (`Run.halved`), on the captions that were scored and, where all runs have
it, over all wordings; verdicts rest on the latter and on one utility (`primary_utility`). Intervals are not corrected
for multiplicity; `p_holm` is, over all differences in memorization and utility, and over runs for `dominates`.
Intervals of cost cover only the variation on this machine at that time: other work slows down every method.

When not to trust differences of audits: intervals treat the models of two runs as independent. With the same random
members in both, as `clipmem compare` requires, their errors are partly shared, and the intervals are too wide.
"""

from collections.abc import Mapping, Sequence
from math import hypot
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from clipmem.base.errors import require, require_one_of
from clipmem.base.paths import is_free, write_json
from clipmem.base.summary import Audit, Rate
from clipmem.base.tables import write_parquet
from clipmem.report.fairness import check_fair, check_once, common, differing, notes
from clipmem.report.figures import standalone
from clipmem.report.frontier import (
    adjust,
    check_along,
    configurations,
    difference,
    dominance,
    front,
    frontier,
    is_useful,
    mean_over_seeds,
    setting_between,
    setting_of,
)
from clipmem.report.page import write_page
from clipmem.report.run import LOWER_IS_BETTER, Run, common_utilities, primary_utility, read_finished
from clipmem.report.sections.comparison import Comparison as Section
from clipmem.report.sections.comparison import pareto_figure
from clipmem.report.templating import notebook_html

MEASURES = ("clipmem", "clipmem_norm")
WORDINGS = "clipmem_wordings"
_MACHINE = ("processor", "cores", "device", "precision", "threads", "workers", "processes")


def compare_finished(
    runs: Sequence[Run],
    *,
    measure: str = "clipmem",
    confidence: float | None = None,
    along: str = "",
    utility: str = "",
) -> dict[str, Any]:
    """Compare runs with the first of them, and by a setting `along`; return the content of `compare.json`.

    Args:
        runs: Finished four-way runs, the baseline first.
        measure: `clipmem` or `clipmem_norm`.
        confidence: Level of the intervals; by default the baseline's.
        along: A setting with numbers, `section.key`: adds `curve`, or `frontier` if the runs differ in others too. By
            default the only setting in which three or more runs differ, if there is one.
        utility: The metric of verdicts (see `primary_utility`).

    Raises:
        InputError: Fewer than two runs, equal names, an unfair comparison (`check_fair`), or an unknown measure,
            setting or metric.
    """
    require_one_of("measure", measure, MEASURES)
    got = f"{len(runs)} run{'s' * (len(runs) != 1)}"
    expected = "two or more, the baseline first"
    require(len(runs) > 1, "clipmem compare", got, expected, "Name the run without mitigation.")
    names = [run.name for run in runs]
    twice = [name for name in dict.fromkeys(names) if names.count(name) > 1]
    require(not twice, "clipmem compare", f"two runs named {twice}", "distinct names", "Rename a folder.")
    hint = "Run it with protocol = 'four-way'; its utility is in evaluate/utility.json."
    for run in runs:
        got = f"protocol {run.recipe.protocol!r}, without scores"
        require(run.is_scored, f"run folder {run.path}", got, "a run with scores", hint)
    baseline, others = runs[0], runs[1:]
    for run in others:
        check_fair(baseline, run, measure=measure)
    confidence, utility = confidence or baseline.recipe.score.confidence, primary_utility(runs, utility)
    rows = [row for run in others for row in _differences(baseline, run, measure, confidence)]
    adjust(rows)
    along = along or setting_between(runs)
    machines = {tuple(f"{name} {run.manifest.get(name)}" for name in _MACHINE) for run in runs}
    metrics = common_utilities(runs)
    unworded = [run.name for run in runs if WORDINGS not in _means(run, run, measure)]
    basis = WORDINGS if measure == "clipmem" and not unworded else measure
    return {
        "format": 3,
        "baseline": baseline.name,
        "measure": measure,
        "primary": {"memorization": basis, "utility": utility},
        "confidence": confidence,
        "seeds": baseline.seeds,
        "runs": [_describe(baseline, run, measure, metrics) for run in runs],
        "differences": rows,
        "dominates": _dominates(others, rows, basis, utility) if utility else [],
        "cost": [row for run in others for row in _cost(baseline, run, confidence)] if len(machines) == 1 else [],
        "pareto": {name: _front_of(runs, rows, basis, name) for name in metrics if not name.endswith(LOWER_IS_BETTER)},
        "notes": [
            *notes(baseline, others),
            *_missing(runs, machines),
            *([{"kind": "no_wordings", "runs": unworded}] if 0 < len(unworded) < len(runs) else []),
        ],
        **(_along(runs, along, measure, basis, utility, confidence) if along else {}),
    }


def _along(
    runs: Sequence[Run], along: str, measure: str, basis: str, utility: str, confidence: float
) -> dict[str, Any]:
    """Return `curve`, the means by the value of a setting, or `frontier` if runs differ in other settings too."""
    check_along(runs, along)
    groups = configurations(runs, along)
    if len(groups) > 1:
        return {"frontier": frontier(groups, along, measure=basis, utility=utility, confidence=confidence)}
    names = {measure, WORDINGS, *common_utilities(runs)}
    rows = [
        {"run": run.name, "value": setting_of(run, along), "measure": name} | mean_over_seeds(mean.values, confidence)
        for run in groups[0]
        for name, mean in _means(run, run, measure).items()
        if name in names
    ]
    return {"curve": {"setting": along, "rows": rows}}


class _Mean(NamedTuple):
    """A measure by seed: of memorization over `n` pairs, or of utility."""

    kind: str
    n: int | None
    values: list[float]


def _means(run: Run, other: Run, measure: str) -> dict[str, _Mean]:
    """Return a run's measures that were taken, of memorization over the pairs in common with another run."""
    candidates, mirror, external = (common(run, other, role) for role in ("candidate", "independent", "external"))
    scale = run.normalizer if measure == "clipmem_norm" else 1.0
    halved = (measure, WORDINGS) if measure == "clipmem" else (measure,)
    means = {name: (len(candidates) + len(mirror), run.halved(candidates, mirror, name)) for name in halved}
    for name, uids in (("candidates", candidates), ("planted", candidates & run.planted), ("control", external)):
        means[f"{measure} {name}"] = len(uids), [value / scale for value in run.memorization(uids)]
    memorization = {name: _Mean("memorization", n, values) for name, (n, values) in means.items() if values}
    return memorization | {name: _Mean("utility", None, values) for name, values in run.utility.items()}


def _differences(baseline: Run, run: Run, measure: str, confidence: float) -> list[dict[str, Any]]:
    means = _means(run, baseline, measure)
    return [
        {"run": run.name, "measure": name, "kind": base.kind, "n": mean.n, "seeds": len(mean.values)}
        | {"values": mean.values, "baseline_values": base.values, **difference(mean.values, base.values, confidence)}
        for name, base in _means(baseline, run, measure).items()
        if (mean := means.get(name))
    ]


def _dominates(
    runs: Sequence[Run], rows: Sequence[Mapping[str, Any]], measure: str, utility: str
) -> list[dict[str, Any]]:
    """Decide for each run whether it dominates the baseline (`dominance`), Holm-adjusted over runs."""
    by_name = {(row["run"], row["measure"]): row for row in rows}
    answers = [{"run": run.name, **dominance(by_name[run.name, measure], by_name[run.name, utility])} for run in runs]
    adjust(answers)
    return answers


def _cost(baseline: Run, run: Run, confidence: float) -> list[dict[str, Any]]:
    if not (baseline.was_trained and run.was_trained):
        return []
    rows: list[dict[str, Any]] = []
    costs, base_costs = run.costs, baseline.costs
    for name, base in base_costs.items():
        if name not in costs:
            continue
        values = costs[name]
        logs = difference(np.log(values), np.log(base), confidence)
        ends = {end: None if logs[end] is None else float(np.exp(logs[end])) for end in ("low", "high")}
        ratio = float(np.exp(logs["difference"]))
        rows.append({"measure": name, "mean": fmean(values), "baseline": fmean(base), "ratio": ratio, **ends})
    whole = {"mean": run.seconds, "baseline": baseline.seconds, "ratio": run.seconds / baseline.seconds}
    rows.append({"measure": "seconds of all stages", **whole, "low": None, "high": None})
    return [{"run": run.name, "models": len(baseline.markers), **row} for row in rows]


def _describe(baseline: Run, run: Run, measure: str, utilities: Sequence[str]) -> dict[str, Any]:
    halved = {name: mean.values for name, mean in _means(run, run, measure).items() if name in (measure, WORDINGS)}
    return {
        "run": run.name,
        "folder": str(run.path),
        "recipe_sha256": run.manifest["recipe_sha256"],
        "differs": differing(baseline, run),
        "presentations": run.presentations,
        "pairs": run.trained_pairs,
        "candidates": len(run.uids("candidate")),
        **halved,
        "utility": {name: run.utility[name] for name in utilities},
    }


_AT_BASELINE = {"difference": 0.0, "low": None, "high": None}


def _front_of(runs: Sequence[Run], rows: Sequence[Mapping[str, Any]], measure: str, utility: str) -> dict[str, Any]:
    """Return each run's differences from the baseline, which is at (0, 0), and the front of the useful runs."""
    means, chance = {run.name: fmean(run.utility[utility]) for run in runs}, runs[0].chance.get(utility)
    by_name = {(row["run"], row["measure"]): {name: row[name] for name in _AT_BASELINE} for row in rows}
    points: list[dict[str, Any]] = [
        {
            "run": run.name,
            "memorization": by_name.get((run.name, measure), _AT_BASELINE),
            "utility": by_name.get((run.name, utility), _AT_BASELINE),
        }
        for run in runs
    ]
    near = [name for name, mean in means.items() if not is_useful(mean, means[runs[0].name], chance)]
    useful = {
        point["run"]: (point["memorization"]["difference"], point["utility"]["difference"])
        for point in points
        if point["run"] not in near
    }
    best = front(useful)
    return {
        "points": [point | {"front": point["run"] in best} for point in points],
        "front": best,
        "chance": chance,
        "left_off": [{"run": name, "reason": "near_chance", "utility": means[name]} for name in near],
    }


def _missing(runs: Sequence[Run], machines: set[tuple[str, ...]]) -> list[dict[str, Any]]:
    missing: list[dict[str, Any]] = [{"kind": "no_utility", "run": run.name} for run in runs if not run.utility]
    ready = [run.name for run in runs if not run.was_trained]
    missing += [{"kind": "not_trained", "runs": ready}] if ready else []
    missing += [{"kind": "other_machine"}] if len(machines) > 1 else []
    return missing + ([{"kind": "one_seed"}] if len(runs[0].seeds) == 1 else [])


PAIRS = "audit/pairs"
RATE = 1  # of `auditing.RATES`: 1% false positives


def compare_audits(runs: Sequence[Run]) -> dict[str, Any]:
    """Compare the audits of runs with that of the first.

    Measures: of each attack AUC and true positive rate at 1% false positives, with their intervals over target models;
    and the advantage (risk - false alarm) of the 1% most exposed pairs, chosen in half of a run's models and measured
    in the other half: share of the run's advantage x its sum / number of these pairs, without interval.

    Raises:
        InputError: The runs have other pairs, or another level of confidence.
    """
    audits = [audit for run in runs if (audit := run.audit)]
    first, baseline = runs[0], audits[0]
    for run, audit in zip(runs, audits, strict=True):
        hint = "Compare audits of the same data, split and score.confidence."
        other = set(run.table(PAIRS)["uid"]) ^ set(first.table(PAIRS)["uid"])
        require(not other, f"audit of {run.name}", f"{len(other):,} other pairs", f"those of {first.name}", hint)
        got, expected = f"confidence {audit.confidence}", f"{baseline.confidence}"
        require(audit.confidence == baseline.confidence, f"audit of {run.name}", got, expected, hint)
    measures = [_rates(audit, run.table(PAIRS)) for run, audit in zip(runs, audits, strict=True)]
    rows = [
        {"run": run.name, "measure": name, "baseline": base.document(), "value": rate.document()}
        | _difference(rate, base)
        for run, rates in zip(runs[1:], measures[1:], strict=True)
        for name, rate in rates.items()
        if (base := measures[0].get(name))
    ]
    described = zip(runs, audits, strict=True)
    return {
        "format": 1,
        "baseline": first.name,
        "runs": [{"run": run.name, "models": audit.models, "pairs": audit.pairs} for run, audit in described],
        "confidence": baseline.confidence,
        "audits": rows,
    }


def _rates(audit: Audit, pairs: pl.DataFrame) -> dict[str, Rate]:
    rates: dict[str, Rate] = {}
    for name, attack in audit.attacks.items():
        rates |= {f"auc {name}": attack.auc, f"tpr {name}": attack.tpr[RATE]}
    if audit.risk.share is not None:
        advantage = float((pairs["risk"] - pairs["false_alarm"]).sum())
        rates["exposed"] = Rate(mean=audit.risk.share * advantage / audit.risk.pairs, low=None, high=None)
    return rates


def _difference(rate: Rate, base: Rate) -> dict[str, float | None]:
    """Return the difference of two means; the squares of half-widths of independent intervals add up."""
    difference = rate.mean - base.mean
    if rate.low is None or rate.high is None or base.low is None or base.high is None:
        return {"difference": difference, "low": None, "high": None}
    low, high = hypot(rate.mean - rate.low, base.high - base.mean), hypot(rate.high - rate.mean, base.mean - base.low)
    return {"difference": difference, "low": difference - low, "high": difference + high}


DOCUMENT, TABLE, PAGE = "compare.json", "compare.parquet", "index.html"
_TEXT = ("run", "measure", "kind")
_NUMBERS = ("baseline", "mean", "difference", "ratio", "low", "high", "p", "p_holm", "wilcoxon_p", "effect")
_SCHEMA: dict[str, type[pl.DataType]] = {
    **dict.fromkeys(_TEXT, pl.String),
    **dict.fromkeys(("n", "seeds"), pl.Int64),
    **dict.fromkeys(_NUMBERS, pl.Float64),
}


def compare_runs(folders: Sequence[Path], **settings: Any) -> dict[str, Any]:
    """Compare finished runs with the first of them, with the `settings` of `compare_finished`.

    If all have an audit, which runs with models paired by seed never have, audits are compared (`compare_audits`).
    """
    check_once(folders, "clipmem compare")
    audited = [run for run in map(Run, folders) if run.audit]
    if len(audited) == len(folders) > 1:
        return compare_audits(audited)
    return compare_finished([read_finished(folder) for folder in folders], **settings)


def write_compared(folders: Sequence[Path], out: Path, **settings: Any) -> dict[str, Any]:
    """Compare runs with the `settings` of `compare_runs`, write document, table and page to `out`."""
    foreign = not is_free(out) and not (out / DOCUMENT).is_file()
    expected, hint = "a new folder, or that of an earlier comparison", "Choose another --out DIR."
    require(not foreign, f"--out {out}", "a folder with other files", expected, hint)
    document = compare_runs(folders, **settings)
    write_json(out / DOCUMENT, document)
    if "audits" in document:
        return document
    rows = [*document["differences"], *({**row, "kind": "cost"} for row in document["cost"])]
    write_parquet(out / TABLE, pl.DataFrame(rows, schema=_SCHEMA))
    write_page(out / PAGE, "comparison", document)
    return document


class Comparison:
    """Finished runs compared with a baseline, over paired seeds; what `clipmem.compare` returns.

    Attributes:
        document: What `clipmem compare` writes as compare.json.
    """

    def __init__(self, document: Mapping[str, Any]) -> None:
        self.document = document

    @property
    def table(self) -> pl.DataFrame:
        """One row per run and measure: mean, baseline, difference with its interval, p-values."""
        return pl.DataFrame(self.document["differences"])

    def __repr__(self) -> str:
        return f"Comparison of {', '.join(run['run'] for run in self.document['runs'])}"

    def _repr_html_(self) -> str:
        rows = [
            {**row, "run": answer["run"], "name": name}
            for answer in Section().data(self.document)["answers"]
            for name, row in answer["parts"]
        ]
        figure = standalone(pareto_figure(self.document).svg("pareto", "narrow")) if self.document["pareto"] else ""
        return notebook_html("comparison", document=self.document, rows=rows) + figure


def compare(baseline: Any, *others: Any, **settings: Any) -> Comparison:
    """Compare finished runs with a baseline: memorization, utility and cost over paired seeds.

    Args:
        baseline: A run, or its folder.
        others: Runs to compare with it.
        settings: `measure`, `confidence`, `along`, `utility`, as in `clipmem compare`.

    Raises:
        InputError: A run is not finished, or the runs differ in data, split, seeds or alignment.
    """
    return Comparison(compare_runs([Path(getattr(run, "path", run)) for run in (baseline, *others)], **settings))
