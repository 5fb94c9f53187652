"""Compare runs with a baseline, seed by seed, and find the Pareto front of memorization and utility.

With m_k the measure of a run and b_k that of the baseline under seed k, the difference is the mean of m_k - b_k with
its t interval over seeds (`functional.paired_test`): a seed has the same initial weights and order of pairs in both
runs, so its effect cancels. Cost is a ratio: exp of the mean of log m_r - log b_r over models r.

Intervals are not corrected for multiplicity; `p_holm` is, over all differences in memorization and utility. Intervals
of cost cover only the variation on this machine at that time: other work slows down every method.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from clipmem.analysis.fairness import check_fair, common, differing, notes
from clipmem.analysis.runs import FinishedRun
from clipmem.base.recipes import flatten
from clipmem.base.require import require, require_one_of
from clipmem.functional.comparisons import holm, paired_test

MEASURES = ("clipmem", "clipmem_norm")
LOWER_IS_BETTER = ("median_rank", "_loss")
_MACHINE = ("processor", "cores", "device", "precision", "threads", "workers", "processes")


class Point(NamedTuple):
    """A run's memorization and utility."""

    run: str
    memorization: float
    utility: float


def front(points: Sequence[Point]) -> list[str]:
    """Return the runs on the Pareto front of the means, in order of memorization."""
    kept = [one for one in points if not any(_dominates(other, one) for other in points)]
    return [one.run for one in sorted(kept, key=lambda one: (one.memorization, -one.utility))]


def _dominates(a: Point, b: Point) -> bool:
    return a.memorization <= b.memorization and a.utility >= b.utility and a[1:] != b[1:]


def compare(
    runs: Sequence[FinishedRun], *, measure: str = "clipmem", confidence: float | None = None, along: str = ""
) -> dict[str, Any]:
    """Compare runs with the first of them, and by a setting `along`; return the content of `compare.json`."""
    require_one_of("measure", measure, MEASURES)
    got = f"{len(runs)} run{'s' * (len(runs) != 1)}"
    expected = "two or more, the baseline first"
    require(len(runs) > 1, "clipmem compare", got, expected, "Name the run without mitigation.")
    names = [run.name for run in runs]
    twice = [name for name in dict.fromkeys(names) if names.count(name) > 1]
    require(not twice, "clipmem compare", f"two runs named {twice}", "distinct names", "Rename a folder.")
    baseline, others = runs[0], runs[1:]
    for run in others:
        check_fair(baseline, run, measure=measure)
    confidence = confidence or baseline.recipe.score.confidence
    rows = [row for run in others for row in _differences(baseline, run, measure, confidence)]
    adjust(rows)
    machines = {_machine(run) for run in runs}
    utilities = [name for name in _utilities(runs) if not name.endswith(LOWER_IS_BETTER)]
    return {
        "format": 2,
        "baseline": baseline.name,
        "measure": measure,
        "confidence": confidence,
        "seeds": baseline.seeds,
        "runs": [_describe(baseline, run, measure, _utilities(runs)) for run in runs],
        "differences": rows,
        "cost": [row for run in others for row in _cost(baseline, run, confidence)] if len(machines) == 1 else [],
        "pareto": {name: _front_of(runs, rows, measure, name) for name in utilities},
        "notes": [*notes(baseline, others), *_missing(runs, machines)],
        **({"curve": _curve(runs, measure, confidence, along)} if along else {}),
    }


def _curve(runs: Sequence[FinishedRun], measure: str, confidence: float, along: str) -> dict[str, Any]:
    """Return the mean of each measure over seeds, with its t interval, by the value of a setting."""
    rows: list[dict[str, Any]] = []
    for run in sorted(runs, key=lambda run: flatten(run.recipe)[along]):
        values = {measure: _memorization(run, run.uids("candidate"), measure)}
        values |= {name: run.utility[name] for name in _utilities(runs)}
        for name, own in values.items():
            # a t interval of a mean is that of paired differences from 0
            found = paired_test(np.array(own), np.zeros(len(own)), confidence)
            ends = {"mean": found.difference, "low": found.low, "high": found.high}
            rows.append({"run": run.name, "value": flatten(run.recipe)[along], "measure": name, **ends})
    return {"setting": along, "rows": rows}


def adjust(rows: Sequence[dict[str, Any]]) -> None:
    """Add `p_holm`, the Holm-adjusted `p`, to each row of a family of tests; None where `p` is None."""
    adjusted = holm(np.array([np.nan if row["p"] is None else row["p"] for row in rows], dtype=np.float64))
    for row, p in zip(rows, adjusted.tolist(), strict=True):
        row["p_holm"] = None if np.isnan(p) else p


def _machine(run: FinishedRun) -> tuple[str, ...]:
    """Return what a run was computed on; times are comparable only if it is the same."""
    return tuple(f"{name} {run.manifest.get(name)}" for name in _MACHINE)


def _utilities(runs: Sequence[FinishedRun]) -> list[str]:
    return [name for name in runs[0].utility if all(name in run.utility for run in runs)]


def _memorization(run: FinishedRun, uids: set[str], measure: str) -> list[float]:
    values = run.memorization(uids)
    return [value / run.normalizer for value in values] if measure == "clipmem_norm" else values


def _differences(baseline: FinishedRun, run: FinishedRun, measure: str, confidence: float) -> list[dict[str, Any]]:
    candidates, external = common(baseline, run), common(baseline, run, "external")
    groups = {measure: candidates, f"{measure} planted": candidates & baseline.planted, f"{measure} control": external}
    rows = [
        _row(run.name, name, "memorization", _memorization(run, uids, measure), _memorization(baseline, uids, measure))
        | {"n": len(uids)}
        for name, uids in groups.items()
        if uids
    ]
    rows += [
        _row(run.name, name, "utility", run.utility[name], baseline.utility[name]) | {"n": None}
        for name in baseline.utility
        if name in run.utility
    ]
    return [row | _tested(row, confidence) for row in rows]


def _row(run: str, name: str, kind: str, values: list[float], base: list[float]) -> dict[str, Any]:
    return {
        "run": run,
        "measure": name,
        "kind": kind,
        "seeds": len(values),
        "values": values,
        "baseline_values": base,
        "mean": float(np.mean(values)),
        "baseline": float(np.mean(base)),
    }


def _tested(row: Mapping[str, Any], confidence: float) -> dict[str, Any]:
    found = paired_test(np.array(row["values"]), np.array(row["baseline_values"]), confidence)
    return {name: getattr(found, name) for name in ("difference", "low", "high", "p", "wilcoxon_p", "effect")}


def _cost(baseline: FinishedRun, run: FinishedRun, confidence: float) -> list[dict[str, Any]]:
    if not (baseline.trained and run.trained):
        return []
    keys = sorted(baseline.markers)
    rows: list[dict[str, Any]] = []
    for name, of in _COSTS.items():
        here, there = ([of(one, key) for key in keys] for one in (baseline, run))
        known = [(a, b) for a, b in zip(there, here, strict=True) if a and b]
        if len(known) < len(keys):
            continue
        values, base = (np.array(side, dtype=np.float64) for side in zip(*known, strict=True))
        found = paired_test(np.log(values), np.log(base), confidence)
        ends = [None if end is None else float(np.exp(end)) for end in (found.low, found.high)]
        means = float(values.mean()), float(base.mean())
        rows.append({"measure": name, **_ratio(*means, float(np.exp(found.difference)), *ends)})
    whole = _ratio(run.seconds, baseline.seconds, run.seconds / baseline.seconds)
    rows.append({"measure": "seconds of all stages", **whole})
    return [{"run": run.name, "models": len(keys), **row} for row in rows]


def _ratio(
    mean: float, baseline: float, ratio: float, low: float | None = None, high: float | None = None
) -> dict[str, float | None]:
    return {"mean": mean, "baseline": baseline, "ratio": ratio, "low": low, "high": high}


def _rate(run: FinishedRun, key: tuple[str, int]) -> float | None:
    return run.markers[key].get("pairs_per_second")


def _seconds(run: FinishedRun, key: tuple[str, int]) -> float | None:
    """Return the time of the whole training at its rate, which is right for resumed trainings too."""
    rate = _rate(run, key)
    return run.records[key]["presentations"] / rate if rate else None


def _memory(run: FinishedRun, key: tuple[str, int]) -> float | None:
    peak = run.markers[key].get("peak_memory_bytes")
    return None if peak is None else peak / 2**20


_COSTS = {"training seconds a model": _seconds, "pairs/s a model": _rate, "peak memory, MiB": _memory}


def _describe(baseline: FinishedRun, run: FinishedRun, measure: str, utilities: Sequence[str]) -> dict[str, Any]:
    candidates = run.uids("candidate")
    return {
        "run": run.name,
        "folder": run.place,
        "recipe_sha256": run.manifest["recipe_sha256"],
        "differs": differing(baseline, run),
        "presentations": run.presentations,
        "pairs": run.pairs,
        "candidates": len(candidates),
        measure: _memorization(run, candidates, measure),
        "utility": {name: run.utility[name] for name in utilities},
    }


def _front_of(
    runs: Sequence[FinishedRun], rows: Sequence[Mapping[str, Any]], measure: str, utility: str
) -> dict[str, Any]:
    """Return each run's differences from the baseline, which is at (0, 0), and the Pareto front."""
    places: list[dict[str, Any]] = [{"run": runs[0].name, "memorization": _place(None), "utility": _place(None)}]
    for run in runs[1:]:
        by_name = {row["measure"]: row for row in rows if row["run"] == run.name}
        places.append({"run": run.name, "memorization": _place(by_name[measure]), "utility": _place(by_name[utility])})
    points = [Point(one["run"], one["memorization"]["difference"], one["utility"]["difference"]) for one in places]
    best = front(points)
    return {"points": [one | {"front": one["run"] in best} for one in places], "front": best}


def _place(row: Mapping[str, Any] | None) -> dict[str, float | None]:
    if row is None:
        return {"difference": 0.0, "low": None, "high": None}
    return {name: row[name] for name in ("difference", "low", "high")}


def _missing(runs: Sequence[FinishedRun], machines: set[tuple[str, ...]]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = [{"kind": "no_utility", "run": run.name} for run in runs if not run.utility]
    ready = [run.name for run in runs if not run.trained]
    found += [{"kind": "not_trained", "runs": ready}] if ready else []
    found += [{"kind": "other_machine"}] if len(machines) > 1 else []
    return found + ([{"kind": "one_seed"}] if len(runs[0].seeds) == 1 else [])
