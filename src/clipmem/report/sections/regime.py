"""Where the study's data stand between one of a kind and redundant, and what follows for reading scores."""

from typing import Any

from clipmem.report.read import RunFiles
from clipmem.report.sections import SECTIONS, Section


@SECTIONS.register("regime")
class Regime(Section):
    """Whether the pairs of the study have twins, and what a high score means then."""

    nav, order, screen = "Regime", 45, "report"

    def applies(self, subject: RunFiles) -> bool:
        return bool(subject.summary.get("regime"))

    def data(self, subject: RunFiles) -> dict[str, Any]:
        return {"found": subject.summary["regime"]}
