"""Forgetting: what the base model could do on data that the user named, and what f and g still can."""

from collections.abc import Mapping
from typing import Any

from clipmem.report.read import RunFiles
from clipmem.report.sections import SECTIONS, Section
from clipmem.report.sections.utility import SHARES
from clipmem.report.templating import words_of

MARGIN = 0.02  # a loss below it counts as kept
_DECIDE = ("zero_shot_acc1", "image_retrieval_recall@5")


@SECTIONS.register("retained")
class Retained(Section):
    """Zero-shot and retrieval before and after fine-tuning."""

    nav, order, screen = "Forgetting", 135, "report"

    def applies(self, subject: RunFiles) -> bool:
        return bool(subject.summary.get("retained"))

    def data(self, subject: RunFiles) -> dict[str, Any]:
        found, columns = subject.summary["retained"], words_of(subject.summary)["columns"]
        metrics = found["metrics"]
        name = next((name for name in _DECIDE if name in metrics["base"]), None)
        return {
            "found": found,
            "columns": {side: columns.get(side, side) for side in metrics if side != "base"},
            "rows": [(name, SHARES[name]) for name in SHARES if name in metrics["base"]],
            "decides": name and {"name": SHARES[name], "change": metrics["f"][name]["change"]},
            "verdict": verdict(metrics["f"][name]["change"]) if name else "not_measured",
            "margin": MARGIN,
        }


def verdict(change: Mapping[str, Any]) -> str:
    """Judge a change of a share: `forgot` if its interval is below 0, `kept` if above -`MARGIN`, or `inconclusive`."""
    low, high = change["low"], change["high"]
    if low is None or high is None:
        return "inconclusive"
    return "forgot" if high < 0 else "kept" if low > -MARGIN else "inconclusive"
