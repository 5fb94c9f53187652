"""Output of `clipmem validate-estimators`: agreement with the truth against cost."""

from collections.abc import Mapping
from typing import Any

from clipmem.report.sections import SECTIONS, Section


@SECTIONS.register("validated")
class Validated(Section):
    """Agreement of every estimator with the truth, by cost."""

    page, screen = "", "validated"

    def data(self, subject: Mapping[str, Any]) -> dict[str, Any]:
        return {"found": subject}
