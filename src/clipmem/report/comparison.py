"""Compare runs with a baseline, seed by seed, and find the Pareto front of memorization and utility; compare audits.

With m_k the measure of a run and b_k that of the baseline under seed k, the difference is the mean of m_k - b_k with
its t interval over seeds (`functional.paired_test`): a seed has the same initial weights and order of pairs in both
runs, so its effect cancels. Cost is a ratio: exp of the mean of log m_r - log b_r over models r.

Unfair comparisons are refused: data, split, alignment (with weight and views), evaluation and seeds must be those of
the baseline. Lengths of training and numbers of captions may differ, with a note: training longer raises
both memorization and utility, and must not pass for the effect of a method. If a run *removed* pairs, memorization is
compared over the pairs that both have.

Memorization is the half-difference (`Run.halved`), on the captions that were scored and, where all runs have
it, over all captions; verdicts rest on the latter and on one utility (`primary_utility`). Intervals are not corrected
for multiplicity; `p_holm` is, over all differences in memorization and utility, and over runs for `dominates`.
Intervals of cost cover only the variation on this machine at that time: other work slows down every method.

When not to trust differences of audits: intervals treat the models of two runs as independent. With the same random
members in both, as `clipmem compare` requires, their errors are partly shared, and the intervals are too wide.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from math import hypot
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from clipmem.base.errors import InputError, require, require_one_of
from clipmem.base.hashing import json_sha256
from clipmem.base.paths import is_free, write_json
from clipmem.base.recipes import flatten
from clipmem.base.summary import Audit, Rate
from clipmem.base.tables import write_parquet
from clipmem.report.figures import standalone
from clipmem.report.frontier import (
    Difference,
    adjusted,
    configurations,
    difference,
    differing,
    dominance,
    front,
    frontier,
    is_useful,
    mean_over_seeds,
    setting_between,
    setting_of,
)
from clipmem.report.page import write_page
from clipmem.report.run import LOWER_IS_BETTER, Run, Runs, common_utilities, primary_utility, read_finished
from clipmem.report.sections import Document
from clipmem.report.sections.comparison import Comparison as Section
from clipmem.report.sections.comparison import pareto_figure
from clipmem.report.templating import notebook_html

MEASURES = ("clipmem", "clipmem_norm")
WORDINGS = "clipmem_wordings"
_MACHINE = ("processor", "cores", "device", "precision", "threads", "workers", "processes")
_SPLIT = ("uid", "role", "group", "planted", "captions_from")  # what runs must have in common


class _Mean(NamedTuple):
    """A measure by seed: of memorization over `n` pairs, or of utility."""

    kind: str
    n: int | None
    values: list[float]


# ---- what may be compared


# what must be the same: name, value, hint
_RULES: tuple[tuple[str, Callable[[Run], object], str], ...] = (
    ("data", lambda run: str(run.manifest["data_sha256"])[:16], "Run both recipes on the same data."),
    (
        "alignment",
        lambda run: f"{run.recipe.score.alignment} with weight {run.recipe.score.weight:g}",
        "Use the same [score] alignment and weight in both.",
    ),
    (
        "views of the alignment",
        lambda run: f"{run.recipe.embed.views} views, {run.recipe.embed.caption_edits} caption edits",
        "Use the same [embed] in both: the number of views changes the measure.",
    ),
    (
        "evaluation",
        lambda run: {
            key: value
            for key, value in flatten(run.recipe).items()
            if key.startswith("evaluate.") and key != "evaluate.wordings"
        },
        "Use the same [evaluate] in both.",
    ),
    ("seeds", lambda run: run.seeds, "Train both with the same train.seeds: runs are compared seed by seed."),
)


def check_fair(baseline: Run, other: Run, *, measure: str = "clipmem") -> None:
    """Refuse a run that is not comparable with the baseline, naming both sides.

    Pairs may have been removed from training, but the rest of the split must be the same; `clipmem_norm` needs the same
    normalizer in both.
    """

    def refuse(name: str, got: object, expected: object, hint: str) -> InputError:
        subject = f"run folder {other.path}: different {name}"
        return InputError(subject, got=str(got), expected=f"{expected}, as in {baseline.path}", hint=hint)

    for name, value, hint in _RULES:
        got, expected = value(other), value(baseline)
        if isinstance(got, dict) and isinstance(expected, dict):  # only the entries that differ
            keys = [key for key in {**expected, **got} if expected.get(key) != got.get(key)]
            got, expected = ({key: entries.get(key) for key in keys} for entries in (got, expected))
        if got != expected:
            raise refuse(name, got, expected, hint)
    splits = baseline.splits
    if _removed(baseline, other):
        in_other = pl.col("uid").is_in(other.splits["uid"].to_list())
        if set(splits.filter(~in_other)["role"]) <= {"shared", "candidate", "independent"}:
            splits = splits.filter(in_other)
    used, got, expected = (
        f"{side.height} pairs, {json_sha256(side.select(_SPLIT).sort('uid').rows())[:16]}"
        for side in (splits, other.splits, baseline.splits)
    )
    if used != got:
        raise refuse("split", got, expected, "Use the same [split] in both.")
    for role, trained in (("candidate", "candidates"), ("independent", "independent pairs")):
        pairs = baseline.uids(role)
        if pairs and not pairs & other.uids(role):
            got, expected = f"none of the {len(pairs):,} {trained}", f"{trained} that both trained on"
            raise refuse(trained, got, expected, "Remove fewer pairs.")
    if measure == "clipmem_norm" and other.normalizer != baseline.normalizer:
        got, expected = f"{other.normalizer:.6g}", f"{baseline.normalizer:.6g}"
        raise refuse("normalizer of clipmem_norm", got, expected, "Compare clipmem, which has no normalizer.")


def _removed(baseline: Run, other: Run) -> set[str]:
    return set(baseline.splits["uid"]) - set(other.splits["uid"])


def _notes(baseline: Run, runs: Runs) -> Iterator[dict[str, object]]:
    """Yield caveats of a fair comparison (removals, length, weights, captions), each a `kind` and its numbers."""
    for run in runs:
        fewer = run.trained_pairs < baseline.trained_pairs
        passes = run.passes / baseline.passes
        if fewer:
            counts = {"pairs": baseline.trained_pairs - run.trained_pairs}
            counts["samples_seen"] = baseline.samples_seen - run.samples_seen
            yield {"kind": "fewer_pairs", "run": run.name, **counts, "passes": passes}
        # as many pairs in total or, after a removal, each pair as often
        if run.samples_seen != baseline.samples_seen and not (fewer and run.passes == baseline.passes):
            counts = {"samples_seen": run.samples_seen, "baseline": baseline.samples_seen}
            yield {"kind": "other_length", "run": run.name, **counts, "passes": passes}
        if _removed(baseline, run) & baseline.uids("candidate"):
            shared = baseline.uids("candidate") & run.uids("candidate")
            yield {"kind": "common_candidates", "run": run.name, "n": len(shared)}
        if any(run.records[key]["init_sha256"] != record["init_sha256"] for key, record in baseline.records.items()):
            yield {"kind": "other_start", "run": run.name}
        captions, plain = run.recipe.train.captions, baseline.recipe.train.captions
        if captions != plain:
            yield {"kind": "other_captions", "run": run.name, "captions": captions, "baseline": plain}
        count, plain = run.recipe.evaluate.wordings, baseline.recipe.evaluate.wordings
        if count != plain:
            yield {"kind": "other_wordings", "run": run.name, "wordings": count, "baseline": plain}


# ---- runs with models paired by seed


def compare_finished(
    runs: Runs, *, measure: str = "clipmem", confidence: float | None = None, along: str = "", utility: str = ""
) -> dict[str, object]:
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
    metrics, means = common_utilities(runs), {run.name: _means(run, run, measure) for run in runs}
    compared: dict[tuple[str, str], tuple[_Mean, _Mean, Difference]] = {}
    for run in others:
        run_means = _means(run, baseline, measure)
        for name, base in _means(baseline, run, measure).items():
            if mean := run_means.get(name):
                compared[run.name, name] = mean, base, difference(mean.values, base.values, confidence)
    tests = {key: test for key, (_, _, test) in compared.items()}
    unworded = [run.name for run in runs if WORDINGS not in means[run.name]]
    basis = WORDINGS if measure == "clipmem" and not unworded else measure
    dominates = [(run.name, dominance(tests[run.name, basis], tests[run.name, utility])) for run in others if utility]
    along = along or setting_between(runs)
    machines = {tuple(f"{name} {run.manifest.get(name)}" for name in _MACHINE) for run in runs}
    ready = [run.name for run in runs if not run.was_trained]
    notes = [*_notes(baseline, others), *({"kind": "no_utility", "run": run.name} for run in runs if not run.utility)]
    notes += [{"kind": "not_trained", "runs": ready}] if ready else []
    notes += [{"kind": "other_machine"}] if len(machines) > 1 else []
    notes += [{"kind": "one_seed"}] if len(baseline.seeds) == 1 else []
    notes += [{"kind": "no_wordings", "runs": unworded}] if 0 < len(unworded) < len(runs) else []
    document = {
        "format": 3,
        "baseline": baseline.name,
        "measure": measure,
        "primary": {"memorization": basis, "utility": utility},
        "confidence": confidence,
        "seeds": baseline.seeds,
        "runs": [
            {
                "run": run.name,
                "folder": str(run.path),
                "recipe_sha256": run.manifest["recipe_sha256"],
                "differs": differing(baseline, run),
                "samples_seen": run.samples_seen,
                "pairs": run.trained_pairs,
                "candidates": len(run.uids("candidate")),
                **{name: mean.values for name, mean in means[run.name].items() if name in (measure, WORDINGS)},
                "utility": {name: run.utility[name] for name in metrics},
            }
            for run in runs
        ],
        "differences": [
            {
                "run": run,
                "measure": name,
                "kind": mean.kind,
                "n": mean.n,
                "seeds": len(mean.values),
                "values": mean.values,
                "baseline_values": base.values,
                **test,
                "p_holm": p,
            }
            for ((run, name), (mean, base, test)), p in zip(compared.items(), adjusted(tests.values()), strict=True)
        ],
        "dominates": [
            {"run": name, **row, "p_holm": p}
            for (name, row), p in zip(dominates, adjusted(row for _, row in dominates), strict=True)
        ],
        "cost": [row for run in others for row in _cost(baseline, run, confidence)] if len(machines) == 1 else [],
        "pareto": {name: _pareto(runs, tests, basis, name) for name in metrics if not name.endswith(LOWER_IS_BETTER)},
        "notes": notes,
    }
    groups = configurations(runs, along) if along else []
    if len(groups) > 1:  # they differ in other settings too
        by_setting = frontier(groups, along, measure=basis, utility=utility, confidence=confidence)
        return {**document, "frontier": by_setting}
    curve = [
        {"run": run.name, "value": setting_of(run, along), "measure": name} | mean_over_seeds(mean.values, confidence)
        for group in groups
        for run in group
        for name, mean in means[run.name].items()
        if name in {measure, WORDINGS, *metrics}
    ]
    return {**document, **({"curve": {"setting": along, "rows": curve}} if along else {})}


def _means(run: Run, other: Run, measure: str) -> dict[str, _Mean]:
    """Return a run's measures that were taken, of memorization over the pairs in common with another run."""
    candidates, mirror, external = (
        run.uids(role) & other.uids(role) for role in ("candidate", "independent", "external")
    )
    scale = run.normalizer if measure == "clipmem_norm" else 1.0
    halved = (measure, WORDINGS) if measure == "clipmem" else (measure,)
    means = {name: (len(candidates) + len(mirror), run.halved(candidates, mirror, name)) for name in halved}
    for name, uids in (("candidates", candidates), ("mismatched", candidates & run.planted), ("held-out", external)):
        means[f"{measure} {name}"] = len(uids), [value / scale for value in run.memorization(uids)]
    memorization = {name: _Mean("memorization", n, values) for name, (n, values) in means.items() if values}
    return memorization | {name: _Mean("utility", None, values) for name, values in run.utility.items()}


def _cost(baseline: Run, run: Run, confidence: float) -> Iterator[dict[str, object]]:
    """Yield the ratios of a run's costs to the baseline's, if both were trained."""
    if not (baseline.was_trained and run.was_trained):
        return
    about, costs = {"run": run.name, "models": len(baseline.markers)}, run.costs
    for name, base in baseline.costs.items():
        if values := costs.get(name):
            logs = difference(np.log(values), np.log(base), confidence)
            ratio, low, high = (
                None if end is None else float(np.exp(end)) for end in (logs["difference"], logs["low"], logs["high"])
            )
            means = {"mean": fmean(values), "baseline": fmean(base)}
            yield {**about, "measure": name, **means, "ratio": ratio, "low": low, "high": high}
    whole = {"mean": run.seconds, "baseline": baseline.seconds, "ratio": run.seconds / baseline.seconds}
    yield {**about, "measure": "seconds of all stages", **whole, "low": None, "high": None}


def _pareto(runs: Runs, tests: Mapping[tuple[str, str], Difference], measure: str, utility: str) -> dict[str, object]:
    """Return each run's differences from the baseline, which is at (0, 0), and the front of the useful runs."""
    means, chance = {run.name: fmean(run.utility[utility]) for run in runs}, runs[0].chance.get(utility)
    useful = [name for name, mean in means.items() if is_useful(mean, means[runs[0].name], chance)]

    def at(run: str, name: str) -> tuple[float, float | None, float | None]:
        test = tests.get((run, name))
        return (test["difference"], test["low"], test["high"]) if test else (0.0, None, None)

    best = front({name: (at(name, measure)[0], at(name, utility)[0]) for name in useful})
    ends = ("difference", "low", "high")
    return {
        "points": [
            {
                "run": name,
                "memorization": dict(zip(ends, at(name, measure), strict=True)),
                "utility": dict(zip(ends, at(name, utility), strict=True)),
                "front": name in best,
            }
            for name in means
        ],
        "front": best,
        "chance": chance,
        "left_off": [
            {"run": name, "reason": "near_chance", "utility": mean}
            for name, mean in means.items()
            if name not in useful
        ],
    }


# ---- audits

PAIRS = "audit/pairs"
RATE = 1  # of `auditing.RATES`: 1% false positives


def compare_audits(runs: Runs) -> dict[str, object]:
    """Compare the audits of runs with that of the first.

    Measures: of each attack AUC and true positive rate at 1% false positives, with intervals over models and pairs;
    and the advantage (risk - false alarm) of the 1% most exposed pairs: their share of it (`exposed_share`) x its sum /
    their number, without interval; not of a run with too few models for the share.

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
    rows: list[dict[str, object]] = []
    for run, rates in zip(runs[1:], measures[1:], strict=True):
        for name, rate in rates.items():
            if base := measures[0].get(name):
                change, ends = rate.mean - base.mean, dict[str, float | None](low=None, high=None)
                if rate.low is not None and rate.high is not None and base.low is not None and base.high is not None:
                    # squares of half-widths of independent intervals add up
                    ends["low"] = change - hypot(rate.mean - rate.low, base.high - base.mean)
                    ends["high"] = change + hypot(rate.high - rate.mean, base.mean - base.low)
                sides = {"baseline": base.document(), "value": rate.document()}
                rows.append({"run": run.name, "measure": name, **sides, "difference": change, **ends})
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


# ---- documents and pages

DOCUMENT, TABLE, PAGE = "compare.json", "compare.parquet", "index.html"
_TEXT = ("run", "measure", "kind")
_NUMBERS = ("baseline", "mean", "difference", "ratio", "low", "high", "p", "p_holm", "wilcoxon_p", "effect")
_SCHEMA: dict[str, type[pl.DataType]] = {
    **dict.fromkeys(_TEXT, pl.String),
    **dict.fromkeys(("n", "seeds"), pl.Int64),
    **dict.fromkeys(_NUMBERS, pl.Float64),
}


def compare_runs(folders: Sequence[Path], **settings: Any) -> Document:
    """Compare finished runs with the first of them, with the `settings` of `compare_finished`.

    If all have an audit, which runs with models paired by seed never have, audits are compared (`compare_audits`).
    """
    places = [folder.resolve() for folder in folders]
    twice = [str(folder) for k, folder in enumerate(folders) if places[k] in places[:k]]
    require(not twice, "clipmem compare", f"{twice} twice", "each run once", "Omit one of them.")
    audited = [run for run in map(Run, folders) if run.audit]
    if len(audited) == len(folders) > 1:
        return compare_audits(audited)
    return compare_finished([read_finished(folder) for folder in folders], **settings)


def write_compared(folders: Sequence[Path], out: Path, **settings: Any) -> Document:
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

    def __init__(self, document: Document) -> None:
        self.document = document

    @property
    def table(self) -> pl.DataFrame:
        """One row per run and measure: mean, baseline, difference with its interval, p-values."""
        return pl.DataFrame(self.document["differences"])

    def __repr__(self) -> str:
        return f"Comparison of {', '.join(run['run'] for run in self.document['runs'])}"

    def _repr_html_(self) -> str:
        rows = [
            {**row, "run": answer.run, "name": name}
            for answer in Section().data(self.document)["answers"]
            for name, row in answer.parts
        ]
        figure = pareto_figure(self.document).svg("pareto", "narrow") if self.document["pareto"] else ""
        return notebook_html("comparison", document=self.document, rows=rows) + standalone(figure, inline=True)


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
