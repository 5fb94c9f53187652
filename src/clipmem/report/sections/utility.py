"""Utility on held-out pairs."""

from collections.abc import Mapping
from typing import Any

from clipmem.report.read import RunFiles
from clipmem.report.sections import SECTIONS, Section
from clipmem.report.templating import words_of

RULERS = {
    "retrieval": {
        "retrieval_recall@5": "retrieval, first 5",
        "retrieval_wordings_recall@5": "all wordings, first 5",
        "image_retrieval_recall@5": "image found, first 5",
        "text_retrieval_recall@5": "caption found, first 5",
        "retrieval_mAP": "mean average precision",
    },
    "zero-shot": {
        "zero_shot_acc1": "zero-shot accuracy",
        "zero_shot_acc5": "zero-shot accuracy, first 5",
        "zero_shot_mean_per_class_recall": "zero-shot recall by class",
        "zero_shot_concept_acc1": "concept accuracy",
        "zero_shot_concept_acc5": "concept, first 5",
        "zero_shot_concept_mean_per_class_recall": "concept recall by class",
    },
    "linear probe": {
        "linear_probe_acc1": "linear probe accuracy",
        "linear_probe_acc5": "linear probe accuracy, first 5",
        "linear_probe_mean_per_class_recall": "linear probe recall by class",
        "linear_probe_sublabel_acc1": "subclass probe accuracy",
        "linear_probe_sublabel_acc5": "subclass probe accuracy, first 5",
        "linear_probe_sublabel_mean_per_class_recall": "subclass probe recall by class",
    },
    "distances, lower is better": {
        "alignment_loss": "alignment",
        "image_uniformity_loss": "uniformity, images",
        "text_uniformity_loss": "uniformity, captions",
    },
}
ROWS = {key: name for own in RULERS.values() for key, name in own.items()}
SHARES = {key: name for key, name in ROWS.items() if not key.endswith("_loss")}
# left out in the terminal
_LONG = ("_recall", "zero_shot_acc5", "probe_acc5", "sublabel_acc5")
_FEW_PAIRS, _TEMPLATES_SHOWN = 1000, 4


@SECTIONS.register("utility")
class Utility(Section):
    """Retrieval, zero-shot, linear probes and distances on pairs that no model trained on."""

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
    low = {side: [name for key, name in rows if key in SHARES and not _above(found, side, key)] for side in columns}
    groups = [(ruler, [row for row in rows if row[0] in own]) for ruler, own in RULERS.items()]
    return {
        "found": found,
        "over": next((entry["over"] for own in found["metrics"].values() for entry in own.values()), "pairs"),
        "columns": columns,
        "rows": rows,
        "rulers": [(ruler, own) for ruler, own in groups if own],
        "short": [row for row in rows if not row[0].endswith(_LONG)],
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
