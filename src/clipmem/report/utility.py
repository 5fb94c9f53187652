"""The section on utility: rows and sentences, from the entry `utility` of `summary.json`.

Nothing is computed here. A run folder without the entry has no section; what was not measured says why.
"""

from collections.abc import Mapping
from typing import Any

from clipmem.report.numbers import percent
from clipmem.report.words import words_of

ROWS = {
    "zero_shot_acc1": "zero-shot accuracy",
    "zero_shot_acc5": "zero-shot accuracy, first 5",
    "zero_shot_mean_per_class_recall": "zero-shot recall by class",
    "linear_probe_acc1": "linear probe accuracy",
    "linear_probe_acc5": "linear probe accuracy, first 5",
    "linear_probe_mean_per_class_recall": "linear probe recall by class",
    "image_retrieval_recall@5": "picture found, first 5",
    "text_retrieval_recall@5": "caption found, first 5",
}
SHORT = (
    "zero_shot_acc1",
    "zero_shot_mean_per_class_recall",
    "linear_probe_acc1",
    "linear_probe_mean_per_class_recall",
    "image_retrieval_recall@5",
    "text_retrieval_recall@5",
)
_FEW = 1000  # pairs
_SHOWN = 4  # templates
_TASKS = {"zero_shot": "Zero-shot classification", "linear_probe": "The linear probe", "retrieval": "Retrieval"}


def measured(summary: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the entry `utility` of a summary, None where there is none."""
    return summary.get("utility")


def sides_of(summary: Mapping[str, Any]) -> list[str]:
    """Return the kinds of models that were measured, in the order of the columns."""
    found = summary["utility"]["metrics"]
    return [side for side in words_of(summary).columns if side in found]


def rows_of(found: Mapping[str, Any], names: tuple[str, ...] = tuple(ROWS)) -> list[tuple[str, str]]:
    """Return key and name of the metrics that were measured."""
    there = {name for own in found["metrics"].values() for name in own}
    return [(name, ROWS[name]) for name in names if name in there]


def skipped_sentences(found: Mapping[str, Any]) -> list[str]:
    """Say what was not measured, and why.

    Example:
        >>> skipped_sentences({"skipped": {"zero_shot": "no external pair has a label"}})
        ['Zero-shot classification was not measured: no external pair has a label.']
    """
    return [f"{_TASKS[task]} was not measured: {reason}." for task, reason in found["skipped"].items()]


def sentences(found: Mapping[str, Any]) -> list[str]:
    """Say what the numbers are of, and what to read them against."""
    n, said = found["n"], list[str]()
    if "zero_shot" not in found["skipped"]:
        shown = found["templates"][:_SHOWN]
        quoted = ", ".join(f"\N{LEFT DOUBLE QUOTATION MARK}{one}\N{RIGHT DOUBLE QUOTATION MARK}" for one in shown)
        left = len(found["templates"]) - len(shown)
        more = f" and {left:,} more" if left > 0 else ""
        said.append(
            f"{n['labelled']:,} of {n['test']:,} pairs have one of {n['classes']:,} classes ({found['labels']}). "
            f"Zero-shot: a class is the mean of its names in {quoted}{more}."
        )
    if "linear_probe" not in found["skipped"]:
        said.append(
            f"The linear probe was trained on {n['probe_train']:,} pairs ({found['probe_pairs']}); always naming the "
            f"class that is commonest among them would be right {percent(_commonest(found))} % of the time."
        )
    if n["test"] < _FEW:
        said.append(f"With {n['test']:,} pairs intervals are wide: small differences mean nothing.")
    return said


def _commonest(found: Mapping[str, Any]) -> float | None:
    """Return the accuracy of always naming the commonest class, from a summary or from the document itself."""
    return (found.get("probe") or found)["commonest_class_acc1"]


def chance_sentence(summary: Mapping[str, Any]) -> str:
    """Name the measures that are no clearly better than chance, for each kind of model; "" where all are."""
    found, columns = summary["utility"], words_of(summary).columns
    said: list[str] = []
    for side in sides_of(summary):
        low = [name for key, name in rows_of(found) if not _above(found, side, key)]
        said += [f"{', '.join(low)} ({columns[side]})"] if low else []
    return f"Not clearly above chance: {'; '.join(said)}." if said else ""


def _above(found: Mapping[str, Any], side: str, name: str) -> bool:
    """Tell whether a metric's interval lies wholly above chance, or its mean where it has none."""
    entry = found["metrics"][side][name]
    lowest = entry["mean"] if entry["low"] is None else entry["low"]
    return lowest > found["chance"][name]


def section(summary: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the template `utility.html` shows; `utility` is None where there is no section.

    Args:
        summary: The content of `summary.json`.
    """
    found = measured(summary)
    if found is None:
        return {"utility": None}
    return {
        "utility": {
            "found": found,
            "sides": sides_of(summary),
            "rows": rows_of(found),
            "sentences": [*filter(None, [*sentences(found), chance_sentence(summary)])],
            "skipped": skipped_sentences(found),
        }
    }
