"""The score in each role, tests between roles, stability over seeds."""

from typing import Any

from clipmem.report.read import RunFiles
from clipmem.report.sections import SECTIONS, Section


@SECTIONS.register("roles")
class Roles(Section):
    """Mean of the score in each role, tests between roles, stability."""

    nav, order, screen = "Roles and tests", 40, "report"

    def data(self, subject: RunFiles) -> dict[str, Any]:
        summary, stable = subject.summary, subject.summary["stability"]
        candidates = summary["roles"]["candidate"]["n"]
        return {
            "seeds": len(summary["seeds"]),
            "candidates": candidates,
            # a tenth of fewer than ten pairs is less than one pair
            "tenth": stable["top10_overlap"] if stable and candidates >= 10 else None,
            "hundredth": stable.get("top1_overlap") if stable and candidates >= 100 else None,
            "paired": summary.get("paired"),
            "has_paired": "paired" in summary,
        }
