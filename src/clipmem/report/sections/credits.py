"""Credits of the images and captions shown."""

from typing import Any

from clipmem.report.gallery import shown_credits
from clipmem.report.read import RunFiles
from clipmem.report.sections import SECTIONS, Section


@SECTIONS.register("credits")
class Credits(Section):
    """Credits of the images and captions shown."""

    nav, order = "Credits", 900

    def data(self, subject: RunFiles) -> dict[str, Any]:
        return {"credits": shown_credits(subject)}
