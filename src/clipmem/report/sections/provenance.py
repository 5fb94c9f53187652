"""How to reproduce a run."""

from typing import Any

from clipmem.data.quarantine import left_out_sentence
from clipmem.report.read import RunFiles
from clipmem.report.sections import SECTIONS, Section


@SECTIONS.register("reproduce")
class Provenance(Section):
    """Command, recipe, versions and hashes of the run."""

    nav, order, screen = "Reproduce", 800, "report"

    def data(self, subject: RunFiles) -> dict[str, Any]:
        records = subject.summary.get("records")
        left_out = left_out_sentence(records) if records else ""
        return {"manifest": subject.manifest, "recipe_lines": subject.recipe_text.splitlines(), "left_out": left_out}
