"""The tables of a comparison in words, one place for page and terminal."""

from collections.abc import Mapping
from typing import Any

from clipmem.report.numbers import Number, interval, p_value, plain, signed

SHORT = {
    "linear_probe_acc1": "linear probe",
    "zero_shot_acc1": "zero-shot",
    "image_retrieval_recall@5": "image R@5",
    "text_retrieval_recall@5": "text R@5",
}


def difference_cells(row: Mapping[str, Any]) -> dict[str, str]:
    """Write a difference: measure, baseline, run, difference, interval, p after Holm.

    Example:
        >>> row = {"run": "a", "measure": "clipmem", "baseline": 0.5, "mean": 0.25, "difference": -0.25}
        >>> difference_cells(row | {"low": -0.5, "high": 0.0, "p_holm": 0.05})["difference"]
        '-0.250'
    """
    digits = 1 if "median_rank" in row["measure"] else 3
    return {
        "run": row["run"],
        "measure": row["measure"],
        "baseline": plain(row["baseline"], digits),
        "mean": plain(row["mean"], digits),
        "difference": signed(row["difference"], digits),
        "interval": interval(row, sign=True, digits=digits),
        "p": p_value(row["p_holm"]),
    }


def cost_cells(row: Mapping[str, Any]) -> dict[str, str]:
    """Write a cost: measure, baseline, run, ratio and its interval.

    Example:
        >>> row = {"run": "a", "measure": "s", "baseline": 10, "mean": 20, "ratio": 2.0}
        >>> cost_cells(row | {"low": None, "high": None})
        {'run': 'a', 'measure': 's', 'baseline': '10.0', 'mean': '20.0', 'ratio': '2.00', 'interval': 'no interval'}
    """
    return {
        "run": row["run"],
        "measure": row["measure"],
        "baseline": _amount(row["baseline"]),
        "mean": _amount(row["mean"]),
        "ratio": plain(row["ratio"], 2),
        "interval": interval(row, digits=2),
    }


def _amount(value: Number) -> str:
    return f"{value:,.0f}" if value >= 100 else plain(value, 1)


def settings_of(run: Mapping[str, Any]) -> str:
    """Write what a run does otherwise than the baseline; "nothing" where only the folder is another.

    Example:
        >>> settings_of({"differs": {"mitigate.text_noise.std": [0.0, 0.15]}})
        'mitigate.text_noise.std = 0.15 (not 0.0)'
    """
    return "; ".join(f"{key} = {there} (not {here})" for key, (here, there) in run["differs"].items()) or "nothing"


def answer_sentences(document: Mapping[str, Any]) -> list[str]:
    """Say for each run which way memorization and utility went, as far as the intervals show."""
    said: list[str] = []
    for run in document["runs"][1:]:
        rows = [row for row in document["differences"] if row["run"] == run["run"]]
        memory = next(row for row in rows if row["measure"] == document["measure"])
        parts = [f"memorization {_went(memory)}"]
        parts += [
            f"{SHORT[name]} {_went(next(row for row in rows if row['measure'] == name))}"
            for name in document["pareto"]
            if name in SHORT
        ]
        said.append(f"{run['run']} against {document['baseline']}: {', '.join(parts)}.")
    return said


def _went(row: Mapping[str, Any]) -> str:
    if row["low"] is None:
        return f"{signed(row['difference'])} (no interval)"
    way = "lower" if row["high"] < 0 else "higher" if row["low"] > 0 else "not shown to differ"
    return f"{way} ({signed(row['difference'])} {interval(row, sign=True)})"
