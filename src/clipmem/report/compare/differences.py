"""The arithmetic of a comparison: every run against the baseline, seed by seed, and which runs nothing beats.

With m_k the measure of a run and b_k that of the baseline under seed k, the difference is the mean of m_k - b_k with
its t interval over seeds (`functional.paired_test`): the same seed has the same initial weights and order of pairs in
both, so that what the seed does to both cancels. Cost is a ratio: exp of the mean of log m_r - log b_r over models r.

Intervals are not corrected for their number; `p_holm` is, over all differences of memorization and utility that are
shown together. Do not read intervals of cost as more than the scatter of this machine's minutes: models that were
trained beside other work are slow under every method.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from clipmem.functional.comparisons import holm, paired_test
from clipmem.report.compare.fair import common, differing, notes
from clipmem.report.compare.run import ComparedRun

LOWER_IS_BETTER = ("median_rank",)
_MACHINE = ("processor", "cores", "device", "precision", "threads", "workers", "processes")


class Point(NamedTuple):
    """A run in the plane of memorization and utility."""

    run: str
    memorization: float
    utility: float


def front(points: Sequence[Point]) -> list[str]:
    """Name the runs that no other run beats: none has less memorization without less utility, or the reverse.

    A run beats another if its memorization is not higher and its utility not lower, and one of them is better. Judged
    by the means alone: two runs within each other's intervals may change places.

    Args:
        points: The runs.

    Returns:
        Names of the runs on the Pareto front, by rising memorization.

    Example:
        >>> front([Point("a", 0.5, 0.5), Point("b", 0.25, 0.75), Point("c", 0.125, 0.25)])
        ['c', 'b']
    """
    kept = [one for one in points if not any(_beats(other, one) for other in points)]
    return [one.run for one in sorted(kept, key=lambda one: (one.memorization, -one.utility))]


def _beats(a: Point, b: Point) -> bool:
    return a.memorization <= b.memorization and a.utility >= b.utility and a[1:] != b[1:]


def compare(runs: Sequence[ComparedRun], *, measure: str = "clipmem", confidence: float) -> dict[str, Any]:
    """Compare runs with the first of them.

    Args:
        runs: The baseline and the others, checked by `check_fair`.
        measure: `clipmem` or `clipmem_norm`.
        confidence: Level of the intervals, between 0 and 1.

    Returns:
        What `compare.json` holds: `runs` with their values by seed, `differences`, `cost`, `pareto`, `notes`.
    """
    baseline, others = runs[0], runs[1:]
    rows = [row for run in others for row in _differences(baseline, run, measure, confidence)]
    adjusted = holm(np.array([np.nan if row["p"] is None else row["p"] for row in rows]))
    for row, p in zip(rows, adjusted.tolist(), strict=True):
        row["p_holm"] = None if np.isnan(p) else p
    machines = {_machine(run) for run in runs}
    utilities = [name for name in _utilities(runs) if not name.endswith(LOWER_IS_BETTER)]
    return {
        "format": 1,
        "baseline": baseline.name,
        "measure": measure,
        "confidence": confidence,
        "seeds": baseline.seeds,
        "runs": [_describe(baseline, run, measure, _utilities(runs)) for run in runs],
        "differences": rows,
        "cost": [row for run in others for row in _cost(baseline, run, confidence)] if len(machines) == 1 else [],
        "pareto": {name: _front_of(runs, rows, measure, name) for name in utilities},
        "notes": [*notes(baseline, others), *_missing(runs, machines)],
    }


def _machine(run: ComparedRun) -> tuple[str, ...]:
    """Return what a run was computed on; times of runs compare only where it is the same."""
    return tuple(f"{name} {run.manifest.get(name)}" for name in _MACHINE)


def _utilities(runs: Sequence[ComparedRun]) -> list[str]:
    """Return the metrics that all runs have, in the baseline's order."""
    return [name for name in runs[0].utility if all(name in run.utility for run in runs)]


def _memorization(run: ComparedRun, uids: set[str], measure: str) -> list[float]:
    values = run.memorization(uids)
    return [value / run.normaliser for value in values] if measure == "clipmem_norm" else values


def _differences(baseline: ComparedRun, run: ComparedRun, measure: str, confidence: float) -> list[dict[str, Any]]:
    candidates, external = common(baseline, run), common(baseline, run, "external")
    groups = {
        measure: candidates,
        f"{measure} planted": candidates & baseline.planted,
        f"{measure} control": external,
    }
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


def _cost(baseline: ComparedRun, run: ComparedRun, confidence: float) -> list[dict[str, Any]]:
    keys = sorted(baseline.markers)
    rows: list[dict[str, Any]] = []
    for name, of in _COSTS.items():
        here, there = ([of(one, key) for key in keys] for one in (baseline, run))
        known = [(a, b) for a, b in zip(there, here, strict=True) if a and b]
        if len(known) < len(keys):
            continue
        values, base = (np.array(side, dtype=np.float64) for side in zip(*known, strict=True))
        found = paired_test(np.log(values), np.log(base), confidence)
        rows.append(
            {
                "run": run.name,
                "measure": name,
                "models": len(keys),
                "mean": float(values.mean()),
                "baseline": float(base.mean()),
                "ratio": float(np.exp(found.difference)),
                "low": None if found.low is None else float(np.exp(found.low)),
                "high": None if found.high is None else float(np.exp(found.high)),
            }
        )
    rows.append(
        {
            "run": run.name,
            "measure": "seconds of all stages",
            "models": len(keys),
            "mean": run.seconds,
            "baseline": baseline.seconds,
            "ratio": run.seconds / baseline.seconds,
            "low": None,
            "high": None,
        }
    )
    return rows


def _rate(run: ComparedRun, key: tuple[str, int]) -> float | None:
    return run.markers[key].get("pairs_per_second")


def _seconds(run: ComparedRun, key: tuple[str, int]) -> float | None:
    """Seconds that the whole training takes at its rate: right also where it was stopped and resumed."""
    rate = _rate(run, key)
    return run.records[key]["presentations"] / rate if rate else None


def _memory(run: ComparedRun, key: tuple[str, int]) -> float | None:
    peak = run.markers[key].get("peak_memory_bytes")
    return None if peak is None else peak / 2**20


_COSTS = {"training seconds a model": _seconds, "pairs/s a model": _rate, "peak memory, MiB": _memory}


def _describe(baseline: ComparedRun, run: ComparedRun, measure: str, utilities: Sequence[str]) -> dict[str, Any]:
    candidates = run.uids("candidate")
    return {
        "run": run.name,
        "folder": str(run.folder.path),
        "recipe_sha256": run.manifest["recipe_sha256"],
        "differs": differing(baseline, run),
        "presentations": run.presentations,
        "pairs": run.pairs,
        "candidates": len(candidates),
        measure: _memorization(run, candidates, measure),
        "utility": {name: run.utility[name] for name in utilities},
    }


def _front_of(
    runs: Sequence[ComparedRun], rows: Sequence[Mapping[str, Any]], measure: str, utility: str
) -> dict[str, Any]:
    """Place the runs by their differences from the baseline, which lies at (0, 0)."""
    places: list[dict[str, Any]] = [
        {"run": runs[0].name, "memorization": _place(None), "utility": _place(None)},
    ]
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


def _missing(runs: Sequence[ComparedRun], machines: set[tuple[str, ...]]) -> list[str]:
    said: list[str] = []
    without = [run.name for run in runs if not run.utility]
    if without:
        said.append(
            f"Utility is not compared: {', '.join(without)} has no {'evaluate/utility.json'}. A clipmem that measures "
            "utility must make the run."
        )
    if len(machines) > 1:
        said.append("Cost is not compared: the runs were not computed on the same machine in the same way.")
    if len(runs[0].seeds) == 1:
        said.append("One seed gives no interval: differences may be the seed's.")
    return said
