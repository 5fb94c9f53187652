"""The end of `clipmem demo`: the commands to try next."""

from collections.abc import Mapping
from typing import Any

from clipmem.report.sections import SECTIONS, Section


@SECTIONS.register("next-steps")
class NextSteps(Section):
    """The commands to try next."""

    page, screen = "", "next"

    def document(self, subject: Any) -> Mapping[str, Any]:  # noqa: ARG002
        return {}
