"""Utility on held-out pairs."""

from collections.abc import Mapping
from typing import Any

from clipmem.report.read import RunFiles
from clipmem.report.sections import SECTIONS, Section
from clipmem.report.templating import words_of

ROWS = {
    "zero_shot_acc1": "zero-shot accuracy",
    "zero_shot_acc5": "zero-shot accuracy, first 5",
    "zero_shot_mean_per_class_recall": "zero-shot recall by class",
    "linear_probe_acc1": "linear probe accuracy",
    "linear_probe_acc5": "linear probe accuracy, first 5",
    "linear_probe_mean_per_class_recall": "linear probe recall by class",
    "image_retrieval_recall@5": "image found, first 5",
    "text_retrieval_recall@5": "caption found, first 5",
    "retrieval_wordings_recall@5": "both, all wordings, first 5",
}
_FEW_PAIRS, _TEMPLATES_SHOWN = 1000, 4


@SECTIONS.register("utility")
class Utility(Section):
    """Zero-shot, linear probe and retrieval on pairs that no model trained on."""

    nav, order, screen = "Utility", 130, "report"

    def applies(self, subject: RunFiles) -> bool:
        return subject.summary.get("utility") is not None

    def data(self, subject: RunFiles) -> dict[str, Any]:
        found = subject.summary["utility"]
        columns = words_of(subject.summary)["columns"]
        return measured(found, {side: columns[side] for side in columns if side in found["metrics"]})


def measured(found: Mapping[str, Any], columns: Mapping[str, str]) -> dict[str, Any]:
    """Return what the templates show, from the entry `utility` of a summary or the output of `clipmem evaluate`."""
    there = {name for own in found["metrics"].values() for name in own}
    rows = [(name, ROWS[name]) for name in ROWS if name in there]
    low = {side: [name for key, name in rows if not _above(found, side, key)] for side in columns}
    return {
        "found": found,
        "over": next((entry["over"] for own in found["metrics"].values() for entry in own.values()), "pairs"),
        "columns": columns,
        "rows": rows,
        "templates": found["templates"][:_TEMPLATES_SHOWN],
        "more_templates": len(found["templates"]) - _TEMPLATES_SHOWN,
        "commonest": (found.get("probe") or found).get("commonest_class_acc1"),
        "few": found["n"]["test"] < _FEW_PAIRS,
        "not_above": [(columns[side], names) for side, names in low.items() if names],
    }


def _above(found: Mapping[str, Any], side: str, name: str) -> bool:
    entry = found["metrics"][side][name]
    lowest = entry["mean"] if entry["low"] is None else entry["low"]
    return lowest > found["chance"][name]
