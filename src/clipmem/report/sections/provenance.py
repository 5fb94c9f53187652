"""How to reproduce a run: command, recipe, versions, hashes."""

from typing import Any

from clipmem.report.read import RunFiles
from clipmem.report.sections import SECTIONS, Section


@SECTIONS.register("reproduce")
class Provenance(Section):
    """Command, recipe, versions and hashes of the run."""

    nav, order = "Reproduce", 800

    def data(self, subject: RunFiles) -> dict[str, Any]:
        """Return the manifest."""
        return {"manifest": subject.manifest, "recipe_lines": subject.recipe_text.splitlines()}
