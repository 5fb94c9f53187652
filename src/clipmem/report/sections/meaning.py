"""What the score means, its range, and when not to trust it."""

from typing import Any

from clipmem.report.read import RunFiles
from clipmem.report.sections import SECTIONS, Section
from clipmem.report.templating import measure_of


@SECTIONS.register("meaning")
class Meaning(Section):
    """What the score means, its range, and when not to trust it."""

    order = 10

    def data(self, subject: RunFiles) -> dict[str, Any]:
        weight = float(subject.summary["weight"])
        measure = measure_of(subject.summary)
        bound = 2 * (1 + 2 * weight) if measure["banked"] else float(measure["bound"])
        return {"seeds": len(subject.summary["seeds"]), "weight": weight, "bound": bound}
