"""Audits of runs side by side, for `clipmem compare`."""

from collections.abc import Mapping
from typing import Any

from clipmem.report.sections import SECTIONS, Section
from clipmem.report.sections.audit import NAMES


@SECTIONS.register("audits")
class Audits(Section):
    """What attacks tell of each run, and its difference from the baseline."""

    page, screen = "", "audits"

    def data(self, subject: Mapping[str, Any]) -> dict[str, Any]:
        names = [run["run"] for run in subject["runs"][1:]]
        rows = [(name, [row for row in subject["audits"] if row["run"] == name]) for name in names]
        return {"rows": rows, "names": NAMES}
