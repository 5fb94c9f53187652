"""Compare the audits of runs: does a change of the training lower what membership inference can tell?

When not to trust it: intervals of differences treat the models of two runs as independent. With the same random members
in both, as `clipmem compare` requires, their errors are partly shared, and the intervals are too wide.
"""

from collections.abc import Mapping, Sequence
from math import hypot
from typing import Any

from clipmem.base.require import require
from clipmem.report.run import Run

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
    first = runs[0]
    for run in runs[1:]:
        hint = "Compare audits of the same data, split and score.confidence."
        other = set(run.table(PAIRS)["uid"]) ^ set(first.table(PAIRS)["uid"])
        require(not other, f"audit of {run.name}", f"{len(other):,} other pairs", f"those of {first.name}", hint)
        levels = [one.audit["confidence"] for one in (run, first)]
        require(levels[0] == levels[1], f"audit of {run.name}", f"confidence {levels[0]}", f"{levels[1]}", hint)
    base = _measures(first)
    rows = [
        {"run": run.name, "measure": name, "baseline": base[name], "value": value, **_difference(value, base[name])}
        for run in runs[1:]
        for name, value in _measures(run).items()
        if name in base
    ]
    described = [{"run": run.name, "models": run.audit["models"], "pairs": run.audit["pairs"]} for run in runs]
    return {
        "format": 1,
        "baseline": first.name,
        "runs": described,
        "confidence": first.audit["confidence"],
        "audits": rows,
    }


def _measures(run: Run) -> dict[str, Mapping[str, float | None]]:
    found: dict[str, Mapping[str, float | None]] = {}
    for name, attack in run.audit["attacks"].items():
        found |= {f"auc {name}": attack["auc"], f"tpr {name}": attack["tpr"][RATE]}
    risk = run.audit["risk"]
    if risk["share"] is not None:
        pairs = run.table(PAIRS)
        advantage = float((pairs["risk"] - pairs["false_alarm"]).sum())
        found["exposed"] = {"mean": risk["share"] * advantage / risk["pairs"], "low": None, "high": None}
    return found


def _difference(value: Mapping[str, Any], base: Mapping[str, Any]) -> dict[str, float | None]:
    """Return the difference of two means; the squares of half-widths of independent intervals add up."""
    difference = value["mean"] - base["mean"]
    if None in (value["low"], base["low"]):
        return {"difference": difference, "low": None, "high": None}
    low = hypot(value["mean"] - value["low"], base["high"] - base["mean"])
    high = hypot(value["high"] - value["mean"], base["mean"] - base["low"])
    return {"difference": difference, "low": difference - low, "high": difference + high}
