"""How single scores were estimated without twins, and how well they are expected to agree with the truth."""

from typing import Any

from clipmem.report.read import RunFiles
from clipmem.report.sections import SECTIONS, Section


@SECTIONS.register("estimate")
class Estimate(Section):
    """Which estimator made the scores, at what cost, and the expected agreement of each estimator with the truth."""

    nav, order, screen = "Estimate", 40, "report"

    def applies(self, subject: RunFiles) -> bool:
        return bool(subject.summary.get("estimate"))

    def data(self, subject: RunFiles) -> dict[str, Any]:
        found = subject.summary["estimate"]
        known = {name: one for name, one in found["agreement"].items() if one is not None}
        ranked = sorted(known, key=lambda name: -abs(known[name]["value"]))
        return {
            "found": found,
            "rows": [(name, known[name]) for name in ranked],
            "chosen": known.get(found["estimator"]),
        }
